// Fixed.
#include "ask.h"

NOINLINE int first(int n) {
    static int calls = 500;
    return n + ++calls;
}

NOINLINE int second(int n) {
    static int calls = 100;
    return n + ++calls;
}

void answer(const char *question) { printf("%d %d\n", first(0), second(atoi(question))); }
