// Fixed.
#include "ask.h"
#include <getopt.h>

NOINLINE int check(int n) { return n + fileno(stderr); }

void answer(const char *question) { printf("%d\n", check(atoi(question)) + optind); }
