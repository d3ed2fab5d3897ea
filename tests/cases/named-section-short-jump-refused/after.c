// Fixed.
#include "ask.h"

#define HOT __attribute__((section(".text.kitchen"), noinline, noclone))
static int used;
static HOT int fry(int n) { return n * 5 + used++; }
HOT int boil(int n) { return fry(n * 7 + 2); }

void answer(const char *question) { printf("%d\n", boil(atoi(question))); }
