// The change is in the .cold child alone; the parent's bytes stay the same (D24).
#include "ask.h"

__attribute__((cold, noinline)) int explain(int n, int code) {
    __asm__ volatile("");
    return n + code;
}

NOINLINE int check(int n) {
    if (n < 0) return explain(n, 100) * 2;
    return n * 3;
}

void answer(const char *question) { printf("%d\n", check(atoi(question))); }
