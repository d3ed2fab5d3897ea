// Fixed.
#include "ask.h"

NOINLINE int decode(int n) { return n - 1000; }
NOINLINE int encode(int n) { return n + 1000; }

void answer(const char *question) { printf("%d %d\n", decode(encode(atoi(question))), encode(1)); }
