// The constructor ran long ago: the fix reaches whoever calls it again, and the packager is told (D44).
#include "ask.h"

static int base;
__attribute__((constructor)) void set_up(void) { base = 40; }

NOINLINE int price(int n) { return n + base; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
