// Two global functions of one body: gcc made one of them jump to the other, or both names of one place (D30).
#include "ask.h"

NOCLONE int north(int n) { return n * 31 + n / 7 + 5; }
NOCLONE int south(int n) { return n * 31 + n / 7 + 5; }

NOINLINE int both(int n) { return north(n) * 1000 + south(n); }

void answer(const char *question) { printf("%d\n", both(atoi(question))); }
