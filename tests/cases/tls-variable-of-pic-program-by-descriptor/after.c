// Fixed.
#include "ask.h"

static __thread int mine = 3;
__thread int ours;

NOINLINE int step(int n) { return mine += n * 2, ours++, mine * 10 + ours; }

void answer(const char *question) { printf("%d\n", step(atoi(question))); }
