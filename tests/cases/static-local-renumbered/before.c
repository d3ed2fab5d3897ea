// A second static of the same name makes gcc number both anew; the old one's state must stay with it (D19).
#include "ask.h"

NOINLINE int first(int n) { return n; }

NOINLINE int second(int n) {
    static int calls = 100;
    return n + ++calls;
}

void answer(const char *question) { printf("%d %d\n", first(0), second(atoi(question))); }
