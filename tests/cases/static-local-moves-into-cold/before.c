// After the fix a static local is touched by the cold part only; its state stays (D23).
#include "ask.h"

__attribute__((cold, noinline)) void complain(int n) { (void)n; __asm__ volatile(""); }

NOINLINE int count(int n) {
    static int errors = 7;
    errors += n < 0;
    return n < 0 ? errors : n;
}

void answer(const char *question) { printf("%d\n", count(atoi(question))); }
