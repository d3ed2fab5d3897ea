// Fixed.
#include "ask.h"

static NOINLINE int mix(int n, int factor) {
    for (int i = 0; i < factor; i++) n = n * factor + i;
    return n;
}

NOINLINE int one(int n) { return mix(n, 3); }
NOINLINE int two(int n) { return mix(n + 1, 3); }

void answer(const char *question) {
    int n = atoi(question);
    printf("%d %d\n", one(n), two(n));
}
