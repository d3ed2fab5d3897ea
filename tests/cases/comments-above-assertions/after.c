// Fixed.
#include "ask.h"

/* A comment
 * of several
 * lines. */
#include <assert.h>
NOCLONE int first(int n) {
    assert(n >= 0);
    return n * 3;
}

/* And another
   one. */
NOCLONE int second(int n) {
    assert(n < 1000);
    return n * 5;
}

void answer(const char *question) { printf("%d %d\n", first(atoi(question)), second(atoi(question))); }
