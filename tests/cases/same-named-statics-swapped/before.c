// Two statics of one name in one function change places: right by debug information, or refused, never exchanged (D21).
#include "ask.h"

NOINLINE int count(int n) {
    if (n & 1) {
        static int calls = 100;
        return calls += 1;
    } else {
        static int calls = 500;
        return calls += 2;
    }
}

void answer(const char *question) { printf("%d\n", count(atoi(question))); }
