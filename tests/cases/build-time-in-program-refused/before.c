// The time of the build is part of the program, so no rebuild is ever the same (D76).
#include "ask.h"

NOINLINE const char *version(void) { return "built at " __DATE__ " " __TIME__; }

NOINLINE int price(int n) { return n * 3; }

void answer(const char *question) { printf("%d %d\n", price(atoi(question)), (int)strlen(version())); }
