// Fixed.
#include "ask.h"

NOCLONE int real(int n) { return n * 4; }
int other_name(int n) __attribute__((alias("real")));
static int (*volatile by_pointer)(int) = other_name;

NOINLINE int both(int n) { return real(n) * 100 + by_pointer(n); }

void answer(const char *question) { printf("%d\n", both(atoi(question))); }
