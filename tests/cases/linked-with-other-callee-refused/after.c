// Fixed.
#include "ask.h"
#include "rates.h"

static int calls;
static int limit = 50;
static __thread int depth;

NOINLINE static int capped(int n) { return n > limit ? limit : n; }
NOINLINE int price(int n) {
    calls++;
    depth += 2;
    return capped(n * 4) + rate(n) + calls * 1000 + depth;
}

void answer(const char *question) {
    const char *name = rate_name(calls);
    printf("%d %s\n", price(atoi(question)), name);
}
