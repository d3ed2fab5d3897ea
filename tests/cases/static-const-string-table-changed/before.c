// A table of strings: the change is two steps away from the code that uses it (D10).
#include "ask.h"

static const char *const names[] = {"zero", "one", "too", "three"};

NOINLINE const char *name_of(int n) { return names[n & 3]; }

void answer(const char *question) { puts(name_of(atoi(question))); }
