// Fixed.
#include "ask.h"

static int first = 1, second = 2;
static int used, more;
NOCLONE int count(int n) {
    used += n;
    more += 10 * n;
    return used + more;
}

void answer(const char *question) {
    int n = atoi(question);
    first += n;
    second += first;
    printf("%d %d\n", count(n), second);
}
