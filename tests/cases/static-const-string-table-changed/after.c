// Fixed.
#include "ask.h"

static const char *const names[] = {"zero", "one", "two", "three"};

NOINLINE const char *name_of(int n) { return names[n & 3]; }

void answer(const char *question) { puts(name_of(atoi(question))); }
