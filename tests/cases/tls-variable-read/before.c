// A thread-local variable of the program lies at a fixed distance from the thread pointer (D49).
#include "ask.h"

static __thread int calls = 10;

NOINLINE int count(int n) { return calls += n; }

void answer(const char *question) { printf("%d\n", count(atoi(question))); }
