// A real fix changes its documentation too, which is listed and does no harm (D106).
#include "ask.h"

NOINLINE int price(int n) { return n * 3; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
