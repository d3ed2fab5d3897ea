// The type lives in the frame of the replaced function and nowhere else: no object of the old layout can be met (D14).
#include "ask.h"

NOINLINE int sum(int n) {
    struct parts {
        int a, b;
    } parts = {n, n + 1};
    __asm__ volatile("" : "+m"(parts));
    return parts.a + parts.b;
}

void answer(const char *question) { printf("%d\n", sum(atoi(question))); }
