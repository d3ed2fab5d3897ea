// Fixed.
#include "ask.h"

static int step = 5;

NOINLINE int ticket(int n) {
    static int next = 100;
    next += step++;
    return n + next;
}

void answer(const char *question) { printf("%d\n", ticket(atoi(question))); }
