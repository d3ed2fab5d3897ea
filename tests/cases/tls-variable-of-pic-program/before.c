// A program of library code: the linker made distances from the thread pointer of its calls (D47).
#include "ask.h"

static __thread int mine = 3;
__thread int ours;

NOINLINE int step(int n) { return mine += n, ours++, mine * 10 + ours; }

void answer(const char *question) { printf("%d\n", step(atoi(question))); }
