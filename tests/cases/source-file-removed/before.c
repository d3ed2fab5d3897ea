// The fix removes a source file and the call to it (D90).
#include "ask.h"

int surcharge(int n);

NOINLINE int price(int n) { return surcharge(n * 3); }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
