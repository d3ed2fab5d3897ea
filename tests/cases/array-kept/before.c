// The same array at its old size is the running one, values and all (D13).
#include "ask.h"

int table[4];

NOINLINE int put(int n) {
    table[n & 3] += n;
    return table[n & 3];
}

int first(void) { return table[0]; }

void answer(const char *question) { printf("%d\n", put(atoi(question))); }
