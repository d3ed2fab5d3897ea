// The expectation names a function that did not change.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"

NOINLINE int price(int n) { return n * 3; }
NOINLINE int half(int n) { return n / 2; }

void answer(const char *question) { printf("%d %d\n", price(atoi(question)), half(9)); }
