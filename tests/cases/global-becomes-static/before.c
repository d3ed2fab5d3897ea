// The fix makes a global function static and changes it: the running program has one such function (D70).
#include "ask.h"

NOCLONE int rate(int n) { return n * 3; }
NOINLINE int price(int n) { return rate(n) + 1; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
