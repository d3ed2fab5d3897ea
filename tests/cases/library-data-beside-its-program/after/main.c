#include "ask.h"

extern int shared;
int bonus(int n);

NOINLINE int total(int n) {
    shared += stderr ? n : 0;
    return bonus(n);
}

void answer(const char *question) { printf("%d\n", total(atoi(question))); }
