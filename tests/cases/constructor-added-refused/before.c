// Constructors run once, at the start of the program: a new one would never run (D43).
#include "ask.h"

static int base = 1;

NOINLINE int price(int n) { return n * base; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
