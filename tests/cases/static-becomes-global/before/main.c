// The fix makes a static function global and uses it from another file: it is the same function still (D70).
#include "ask.h"

int outside(int n);
static NOCLONE int rate(int n) { return n * 3; }
NOINLINE int price(int n) { return rate(n) + outside(n); }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
