// The fix uses two variables in another order, and a compiler that reaches both through one address may swap their places (D99).
#include "ask.h"

static int first = 1, second = 20;
NOCLONE int both(int n) {
    first += n;
    second += 10 * n;
    return first + second;
}
NOCLONE int left(void) { return first; }
NOCLONE int right(void) { return second; }

void answer(const char *question) {
    int all = both(atoi(question));
    printf("%d %d %d\n", all, left(), right());
}
