// Fixed.
#include "ask.h"

int limit = 7, spare = 3;

// The first instruction reads relative to the instruction pointer.
NOCLONE int over(int n) { return limit > n ? 21 : spare; }
// A conditional jump is among the first instructions.
NOCLONE int sign(int n) {
    if (n > 0) return spare + 30;
    return limit;
}
// Three bytes and a return; the rest is padding.
NOCLONE int zero(void) { return limit - 3; }
// A jump is all there is.
NOCLONE int chain(int n) { return sign(n) + 83; }
// The whole function is a return.
NOCLONE void none(void) { __asm__ volatile("nop"); }

void answer(const char *question) {
    none();
    printf("%d %d %d %d\n", over(atoi(question)), sign(atoi(question)), zero(), chain(-atoi(question)));
}
