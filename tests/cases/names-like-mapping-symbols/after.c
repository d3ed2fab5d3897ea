#include "ask.h"

static int $d = 1;

static NOINLINE int $x(int n) {
    $d += n;
    return $d * 5;
}

void answer(const char *question) { printf("%d\n", $x(atoi(question))); }
