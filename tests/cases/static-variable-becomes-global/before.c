// The fix makes a static variable global: its state stays with it (D70).
#include "ask.h"

static int total;
NOINLINE int add(int n) { return total += n; }

void answer(const char *question) { printf("%d\n", add(atoi(question))); }
