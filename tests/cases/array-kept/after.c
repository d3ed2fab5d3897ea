// Fixed.
#include "ask.h"

int table[4];

NOINLINE int put(int n) {
    table[n & 3] += n * 10;
    return table[n & 3];
}

int first(void) { return table[0]; }

void answer(const char *question) { printf("%d\n", put(atoi(question))); }
