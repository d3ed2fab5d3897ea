// One static local is used by the copies that were inlined into two functions: both must go on with the same one (D20).
#include "ask.h"

static inline __attribute__((always_inline)) int next(int n) {
    static int number = 10;
    return number += n;
}

NOINLINE int left(int n) { return next(n) * 2; }
NOINLINE int right(int n) { return next(n) * 3; }

void answer(const char *question) {
    int n = atoi(question), first = left(n);
    printf("%d %d\n", first, right(n));
}
