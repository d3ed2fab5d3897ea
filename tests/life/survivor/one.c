// SPDX-License-Identifier: GPL-2.0-or-later
volatile int calls_one;

int v4(int n) { calls_one++; return n + 104; }
