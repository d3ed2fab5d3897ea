// The fix reads stderr, and a caller that stays reads other library data: two compiles would call each other (D57).
#include "ask.h"
#include <getopt.h>

NOINLINE int check(int n) { return n; }

void answer(const char *question) { printf("%d\n", check(atoi(question)) + optind); }
