// A function and a variable are called like the symbols with which aarch64's assemblers tell code from data (D101).
#include "ask.h"

static int $d = 1;

static NOINLINE int $x(int n) {
    $d += n;
    return $d * 3;
}

void answer(const char *question) { printf("%d\n", $x(atoi(question))); }
