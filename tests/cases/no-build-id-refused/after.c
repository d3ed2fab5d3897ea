// Fixed.
#include "ask.h"

NOCLONE int price(int n) { return n * 4 + 11; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
