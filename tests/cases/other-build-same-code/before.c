// Another directory and another time of the build do not make another program (D80).
#include "ask.h"

NOINLINE int price(int n) { return n * 3; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
