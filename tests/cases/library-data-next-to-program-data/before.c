// The fix reads stderr for the first time, next to a copy relocation, a static and a pointer of the program (D57).
#include "ask.h"
#include <getopt.h>

static int calls;
static int twice(int n) { return 2 * n; }
int (*volatile apply)(int) = twice;

NOINLINE void begin(void) { optind = 700; }

NOINLINE int check(int n) {
    calls++;
    return n;
}

static NOINLINE void show(int n) { printf("%d %d\n", n, calls); }

void answer(const char *question) {
    if (*question == 'b') {
        begin();
        show(0);
    } else {
        show(check(atoi(question)));
    }
}
