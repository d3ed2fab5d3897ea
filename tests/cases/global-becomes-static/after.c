// Fixed.
#include "ask.h"

static NOCLONE int rate(int n) { return n * 4; }
NOINLINE int price(int n) { return rate(n) + 1; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
