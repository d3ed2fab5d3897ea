// Fixed.
#include "ask.h"

__attribute__((cold, noinline)) void complain(int n) { (void)n; __asm__ volatile(""); }

NOINLINE int count(int n) {
    static int errors = 7;
    if (n < 0) {
        complain(n);
        errors += 10;
        return errors;
    }
    return n;
}

void answer(const char *question) { printf("%d\n", count(atoi(question))); }
