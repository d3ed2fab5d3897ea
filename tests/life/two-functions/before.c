// Two functions that two patches change independently of each other (A).
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"

NOINLINE int left(int n) { return n + 1; }
NOINLINE int right(int n) { return n + 2; }

void answer(const char *question) { printf("%d %d\n", left(atoi(question)), right(atoi(question))); }
