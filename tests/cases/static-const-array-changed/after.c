// Fixed.
#include "ask.h"

static const int weights[] = {3, 1, 4, 100, 5, 9, 2, 6};

NOINLINE int weigh(int n) { return weights[n & 7]; }

void answer(const char *question) { printf("%d\n", weigh(atoi(question))); }
