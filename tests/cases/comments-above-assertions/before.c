// Comments move the lines of assertions below them, whose numbers are part of the code (D73).
#include "ask.h"

#include <assert.h>
NOCLONE int first(int n) {
    assert(n >= 0);
    return n * 3;
}

NOCLONE int second(int n) {
    assert(n < 1000);
    return n * 5;
}

void answer(const char *question) { printf("%d %d\n", first(atoi(question)), second(atoi(question))); }
