// The fix removes a function; it stays in memory, and the list of what is gone names it (D71).
#include "ask.h"

static NOCLONE int surcharge(int n) { return n + 50; }

NOINLINE int price(int n) { return surcharge(n * 3); }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
