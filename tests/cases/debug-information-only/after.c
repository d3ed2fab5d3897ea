// Fixed.
#include "ask.h"

NOCLONE int price(int n) { int total = n * 3; for (int k = 0; k < n; k++) total ^= k; return total; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
