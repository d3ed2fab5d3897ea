// Fixed.
#include "ask.h"

int total;
NOINLINE int add(int n) { return total += n * 10; }

void answer(const char *question) { printf("%d\n", add(atoi(question))); }
