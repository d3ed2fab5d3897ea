// Fixed.
#include "ask.h"

static int base = 1;

__attribute__((constructor)) static void prepare(void) { base = 7; }

NOINLINE int price(int n) { return n * base; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
