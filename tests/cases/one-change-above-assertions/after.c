// Fixed.
#include "ask.h"

#include <assert.h>
NOCLONE int first(int n) {
    assert(n >= 0);
    if (n > 100)
        return 300;
    n += 1;
    return n * 3;
}

/* A comment. */
NOCLONE int second(int n) {
    assert(n < 1000);
    return n * 5;
}

void answer(const char *question) { printf("%d %d\n", first(atoi(question)), second(atoi(question))); }
