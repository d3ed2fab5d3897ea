// Fixed.
#include "ask.h"

static int calls;
NOCLONE int price(int n) { return n * 5 + calls++; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
