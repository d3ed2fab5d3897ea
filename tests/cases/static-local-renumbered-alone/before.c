// Only the number behind the name moves: the function that uses it must not count as changed (D19).
#include "ask.h"

NOINLINE int first(int n) { return n; }

NOINLINE int second(int n) {
    static int calls = 100;
    return n + ++calls;
}

void answer(const char *question) { printf("%d %d\n", first(0), second(atoi(question))); }
