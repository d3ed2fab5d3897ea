// Fixed.
#include "ask.h"

int helper(int n);

NOINLINE int compute(int n) { return atoi("3") * helper(n); }

void answer(const char *question) { printf("%d %d\n", compute(atoi(question)), helper(1)); }
