// Fixed.
#include "ask.h"

static __thread int calls = 10;

NOINLINE int count(int n) { static __thread int last;
    last += n;
    return calls += last; }

void answer(const char *question) { printf("%d\n", count(atoi(question))); }
