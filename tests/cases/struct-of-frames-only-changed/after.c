// Fixed.
#include "ask.h"

NOINLINE int sum(int n) {
    struct parts {
        int a, b;
        long c;
    } parts = {n, n + 1, 100};
    __asm__ volatile("" : "+m"(parts));
    return parts.a + parts.b + parts.c;
}

void answer(const char *question) { printf("%d\n", sum(atoi(question))); }
