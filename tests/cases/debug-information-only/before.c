// Only names of local variables change, which nothing but a debugger sees (D78).
#include "ask.h"

NOCLONE int price(int n) { int sum = n * 3; for (int i = 0; i < n; i++) sum ^= i; return sum; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
