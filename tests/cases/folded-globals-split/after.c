// Fixed.
#include "ask.h"

NOCLONE int north(int n) { return n * 31 + n / 7 + 5; }
NOCLONE int south(int n) { return n * 30 + n / 7 + 5; }

NOINLINE int both(int n) { return north(n) * 1000 + south(n); }

void answer(const char *question) { printf("%d\n", both(atoi(question))); }
