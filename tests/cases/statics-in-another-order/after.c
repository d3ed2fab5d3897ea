// Fixed.
#include "ask.h"

static int first = 1, second = 20;
NOCLONE int both(int n) {
    second += 30 * n;
    first += n;
    return first + second;
}
NOCLONE int left(void) { return first; }
NOCLONE int right(void) { return second; }

void answer(const char *question) {
    int all = both(atoi(question));
    printf("%d %d %d\n", all, left(), right());
}
