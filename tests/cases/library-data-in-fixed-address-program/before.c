// The fix reads stderr, of which a program at a fixed address has no copy (D57).
#include "ask.h"

NOINLINE int check(int n) { return n; }

void answer(const char *question) { printf("%d\n", check(atoi(question))); }
