// Fixed.
#include "ask.h"

NOINLINE int visit(int n) {
    static int visits;
    return n + ++visits;
}

void answer(const char *question) { printf("%d\n", visit(atoi(question))); }
