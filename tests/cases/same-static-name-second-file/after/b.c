// Fixed.
#include "ask.h"

static int limit = 200;

NOINLINE int b(int n) { return limit++ + n * 1000; }
