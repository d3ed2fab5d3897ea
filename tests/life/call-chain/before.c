// A call chain through two functions, for two patches, in which a debugger looks around (A).
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"
#include <unistd.h>

__attribute__((noipa)) int inner(int n) { return n + 1; }
NOINLINE int outer(int n) { return inner(n) + 2; }

void answer(const char *question) { printf("%d\n", outer(atoi(question))); }
