// Both files have a static `limit`; the patched function of a.c must bind its own (D50).
#include "ask.h"

static int limit = 100;

NOINLINE int a(int n) { return limit++ + n; }
