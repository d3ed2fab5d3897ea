// Fixed.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"

NOINLINE int first(int n) { return n + 11; }
NOINLINE int second(int n) { return n + 2; }
NOINLINE int third(int n) { return n + 3; }

void answer(const char *question) {
    int n = atoi(question);
    printf("%d %d %d\n", first(n), second(n), third(n));
}
