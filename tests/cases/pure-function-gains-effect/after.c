// Fixed.
#include "ask.h"

static int calls;

static NOCLONE int twice(int n) { calls++;
    return n * 2 + 1; }
NOINLINE int sum(int n) { return twice(n) + twice(n) + calls; }

void answer(const char *question) { printf("%d\n", sum(atoi(question))); }
