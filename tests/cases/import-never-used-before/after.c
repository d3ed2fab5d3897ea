// Fixed.
#include "ask.h"

#include <unistd.h>

NOINLINE int check(int n) { return getpgid(0) > 0 ? n * 2 : 0; }

void answer(const char *question) { printf("%d\n", check(atoi(question))); }
