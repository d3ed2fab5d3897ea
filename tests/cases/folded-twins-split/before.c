// gcc had folded two functions of the same body into one; the fix changes one of them (D30).
#include "ask.h"

static NOCLONE int north(int n) { return n * 31 + n / 7 + 5; }
static NOCLONE int south(int n) { return n * 31 + n / 7 + 5; }

NOINLINE int both(int n) { return north(n) * 1000 + south(n); }

void answer(const char *question) { printf("%d\n", both(atoi(question))); }
