// Callers call a pure function once for two uses; after the fix it counts, and they must call it twice (D28).
#include "ask.h"

static int calls;

static NOCLONE int twice(int n) { return n * 2 + 1; }
NOINLINE int sum(int n) { return twice(n) + twice(n) + calls; }

void answer(const char *question) { printf("%d\n", sum(atoi(question))); }
