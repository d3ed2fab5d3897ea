// The fix reads stdin, which the program holds by a copy relocation and uses elsewhere (D57).
#include "ask.h"

NOINLINE int check(int n) { return n; }

void answer(const char *question) { printf("%d\n", check(atoi(question))); }
