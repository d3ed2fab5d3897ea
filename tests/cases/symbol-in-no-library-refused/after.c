// Fixed.
#include "ask.h"

int no_such_function(int n);

NOINLINE int check(int n) { return no_such_function(n); }

void answer(const char *question) { printf("%d\n", check(atoi(question))); }
