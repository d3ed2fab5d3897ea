// Fixed.
#include "ask.h"

NOINLINE const char *greeting(void) { return "hello"; }

void answer(const char *question) { printf("%s %s\n", greeting(), question); }
