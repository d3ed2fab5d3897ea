// The fix brings a source file of its own, which only the fixed tree compiles (D90).
#include "ask.h"

NOINLINE int price(int n) { return n * 3; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
