// Production was compiled with other options: the refusal names them (D79).
#include "ask.h"

NOINLINE int price(int n) { return n * 3; }
NOINLINE int half(int n) { return n / 2; }

void answer(const char *question) { printf("%d %d\n", price(atoi(question)), half(9)); }
