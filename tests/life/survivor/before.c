// A program that shows every harm an applier can do: threads in all kinds of wait, registers and versions checked (A).
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"

volatile int calls;

NOINLINE int v1(int n) { calls++; return n + 101; }
NOINLINE int v2(int n) { calls++; return n + 102; }
NOINLINE int v3(int n) { calls++; return n + 103; }
