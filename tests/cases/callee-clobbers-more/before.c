// Callers keep values in registers that the old callee leaves alone (-fipa-ra); the new one does not (D27).
#include "ask.h"

static NOCLONE int mix(int n) { return n + 1; }

NOINLINE int keep(int a, int b, int c, int d) {
    int first = mix(a);
    return first * 1000 + b * 100 + c * 10 + d;
}

void answer(const char *question) { printf("%d\n", keep(atoi(question), 2, 3, 4)); }
