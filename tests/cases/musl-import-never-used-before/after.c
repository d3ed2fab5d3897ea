// Fixed.
#include "ask.h"
#include <unistd.h>

NOINLINE long check(const char *text) { return getpgid(0) > 0 ? text[0] * 2 : 0; }

void answer(const char *question) { printf("%ld\n", check(question)); }
