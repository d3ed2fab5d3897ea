#include "ask.h"

NOINLINE int price(int n) { return n * 5; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
