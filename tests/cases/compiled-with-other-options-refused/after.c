// Fixed.
#include "ask.h"

NOINLINE int price(int n) { return n * 4; }
NOINLINE int half(int n) { return n / 2; }

void answer(const char *question) { printf("%d %d\n", price(atoi(question)), half(9)); }
