// SPDX-License-Identifier: GPL-2.0-or-later
volatile int calls_two;

int v5(int n) { calls_two++; return n + 105; }
