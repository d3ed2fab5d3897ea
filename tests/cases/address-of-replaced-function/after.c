// Fixed.
#include "ask.h"

NOCLONE int handler(int n) { return n * 4; }
static int (*volatile registered)(int);

NOINLINE int same(int n) {
    if (!registered) registered = handler;
    return (registered == handler) * 200 + registered(n);
}
NOINLINE int also(void) { return registered == handler; }

void answer(const char *question) {
    int first = same(atoi(question));
    printf("%d %d\n", first, also());
}
