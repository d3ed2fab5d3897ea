// The fix takes a counter away: it stays in memory, and the packager is told (D22).
#include "ask.h"

NOINLINE int visit(int n) {
    static int visits;
    visits++;
    return n + visits;
}

void answer(const char *question) { printf("%d\n", visit(atoi(question))); }
