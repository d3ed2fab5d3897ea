// Fixed.
#include "ask.h"

static int calls;
static const char *const names[] = {"zero", "one", "two"};

NOINLINE const char *name_of(int n) {
    calls += 10;
    return names[n % 3];
}

void answer(const char *question) {
    const char *name = name_of(atoi(question));
    printf("%s %d\n", name, calls);
}
