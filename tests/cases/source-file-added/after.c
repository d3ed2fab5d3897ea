// Fixed.
#include "ask.h"

int discount(int n);

NOINLINE int price(int n) { return discount(n * 3); }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
