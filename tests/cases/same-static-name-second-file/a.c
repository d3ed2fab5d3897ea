#include "ask.h"

static int limit = 100;

NOINLINE int a(int n) { return limit++ + n; }
