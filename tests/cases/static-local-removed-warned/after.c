// Fixed.
#include "ask.h"

NOINLINE int visit(int n) {
    return n * 2;
}

void answer(const char *question) { printf("%d\n", visit(atoi(question))); }
