// The fix touches a file that no compiler reads: saying "no change" would hide a fix that was lost (D106).
#include "ask.h"

NOINLINE int price(int n) { return n * 3; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
