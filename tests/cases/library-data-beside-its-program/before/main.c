// The program has a copy of its library's variable, and the fix makes both read data of the C library that neither knew: the library goes on reaching the copy (D57).
#include "ask.h"

extern int shared;
int bonus(int n);

NOINLINE int total(int n) {
    shared += n;
    return bonus(n);
}

void answer(const char *question) { printf("%d\n", total(atoi(question))); }
