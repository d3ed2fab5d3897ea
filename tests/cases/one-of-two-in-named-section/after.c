// Fixed.
#include "ask.h"

#define HOT __attribute__((section(".text.kitchen"), noinline, noclone))
HOT int boil(int n) { return n * 4; }
HOT int fry(int n) { return n * 5; }

void answer(const char *question) { printf("%d %d\n", boil(atoi(question)), fry(atoi(question))); }
