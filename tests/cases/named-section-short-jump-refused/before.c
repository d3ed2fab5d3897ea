// In a section that the source names, one function ends in a short jump into the other, which a copy elsewhere cannot reach (D60).
#include "ask.h"

#define HOT __attribute__((section(".text.kitchen"), noinline, noclone))
static int used;
static HOT int fry(int n) { return n * 5 + used++; }
HOT int boil(int n) { return fry(n * 3 + 1); }

void answer(const char *question) { printf("%d\n", boil(atoi(question))); }
