// Fixed.
#include "ask.h"

NOINLINE int price(int n) { return n * 4; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
