// Every function begins with no-operations for a tracer, and a section lists them (D63).
#include "ask.h"

static int calls;
static NOCLONE int helper(int n) { return n * 7 + calls++; }
NOCLONE int price(int n) { return helper(n) + 100; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
