// Pointers to a replaced function, taken before and after, inside and outside of the patch, compare equal (D111).
#include "ask.h"

NOCLONE int handler(int n) { return n * 3; }
static int (*volatile registered)(int);

NOINLINE int same(int n) {
    if (!registered) registered = handler;
    return (registered == handler) * 100 + registered(n);
}
NOINLINE int also(void) { return registered == handler; }

void answer(const char *question) {
    int first = same(atoi(question));
    printf("%d %d\n", first, also());
}
