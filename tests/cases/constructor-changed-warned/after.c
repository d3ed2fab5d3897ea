// Fixed.
#include "ask.h"

static int base;
__attribute__((constructor)) void set_up(void) { base = 50; }

NOINLINE int price(int n) { return n * 2 + base; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
