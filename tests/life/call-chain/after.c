// Fixed: a number below zero stays inside for good.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"
#include <unistd.h>

NOINLINE int stay(int n) {
    puts("inside");
    while (n < 0) pause();
    return n;
}
__attribute__((noipa)) int inner(int n) { return n < 0 ? stay(n) + 1 : n + 100; }
NOINLINE int outer(int n) { return inner(n) + 2; }

void answer(const char *question) { printf("%d\n", outer(atoi(question))); }
