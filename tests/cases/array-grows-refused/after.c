// Fixed.
#include "ask.h"

int table[8];

NOINLINE int put(int n) {
    table[n & 7] += n;
    return table[n & 7];
}

int first(void) { return table[0]; }

void answer(const char *question) { printf("%d\n", put(atoi(question))); }
