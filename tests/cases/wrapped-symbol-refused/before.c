// The linker turns references to helper() into another function (--wrap); a new reference would bypass it (D58).
#include "ask.h"

int helper(int n);

NOINLINE int compute(int n) { return atoi("3") * n; }

void answer(const char *question) { printf("%d %d\n", compute(atoi(question)), helper(1)); }
