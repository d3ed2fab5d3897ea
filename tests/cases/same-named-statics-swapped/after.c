// Fixed.
#include "ask.h"

NOINLINE int count(int n) {
    if (!(n & 1)) {
        static int calls = 500;
        return calls += 3;
    } else {
        static int calls = 100;
        return calls += 1;
    }
}

void answer(const char *question) { printf("%d\n", count(atoi(question))); }
