// The fix calls a function that no library of the program has (D58).
#include "ask.h"

NOINLINE int check(int n) { return n; }

void answer(const char *question) { printf("%d\n", check(atoi(question))); }
