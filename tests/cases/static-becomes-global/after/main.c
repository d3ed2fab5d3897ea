// Fixed.
#include "ask.h"

int outside(int n);
NOCLONE int rate(int n) { return n * 3; }
NOINLINE int price(int n) { return rate(n) + outside(n); }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
