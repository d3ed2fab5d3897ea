// Both files have a static `limit`; the patched function of b.c must bind its own (D50).
#include "ask.h"

static int limit = 200;

NOINLINE int b(int n) { return limit++ + n; }
