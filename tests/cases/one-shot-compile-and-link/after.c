// Fixed.
#include "ask.h"

NOINLINE int price(int n) { return n * 3 + 1; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
