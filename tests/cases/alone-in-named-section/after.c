// Fixed.
#include "ask.h"

__attribute__((section(".text.kitchen"), noinline, noclone)) int boil(int n) { return n * 24 + 1000; }

void answer(const char *question) { printf("%d\n", boil(atoi(question))); }
