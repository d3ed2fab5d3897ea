// The threads' storage is laid out and has no room for a new thread-local variable (D49).
#include "ask.h"

static __thread int calls = 10;

NOINLINE int count(int n) { return calls += n; }

void answer(const char *question) { printf("%d\n", count(atoi(question))); }
