// With a pinned time the same sources give the same program again (D76).
#include "ask.h"

NOINLINE const char *version(void) { return "built at " __DATE__ " " __TIME__; }

NOINLINE int price(int n) { return n * 3; }

void answer(const char *question) { printf("%d %d\n", price(atoi(question)), (int)strlen(version())); }
