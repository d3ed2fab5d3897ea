// Fixed.
#include "ask.h"

static __thread int calls = 10;

NOINLINE int count(int n) { return calls += n * 100; }

void answer(const char *question) { printf("%d\n", count(atoi(question))); }
