// A program at a fixed address: the patch must lie within reach of absolute 32-bit addresses (A).
#include "ask.h"

static int calls;
static const char *const names[] = {"zero", "one", "two"};

NOINLINE const char *name_of(int n) {
    calls++;
    return names[n % 3];
}

void answer(const char *question) {
    const char *name = name_of(atoi(question));
    printf("%s %d\n", name, calls);
}
