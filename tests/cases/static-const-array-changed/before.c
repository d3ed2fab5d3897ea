// A constant table of one function changes; its name is local and the code stays the same (D8).
#include "ask.h"

static const int weights[] = {3, 1, 4, 1, 5, 9, 2, 6};

NOINLINE int weigh(int n) { return weights[n & 7]; }

void answer(const char *question) { printf("%d\n", weigh(atoi(question))); }
