// New variables with values of their own, one in a function and one in the file, both writable (D18).
#include "ask.h"

NOINLINE int ticket(int n) { return n; }

void answer(const char *question) { printf("%d\n", ticket(atoi(question))); }
