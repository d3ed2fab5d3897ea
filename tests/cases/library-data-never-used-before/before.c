// The fix reads stderr, and the program has neither a copy relocation nor a slot for it (D57).
#include "ask.h"

NOINLINE int check(int n) { return n; }

void answer(const char *question) { printf("%d\n", check(atoi(question))); }
