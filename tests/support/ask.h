// SPDX-License-Identifier: GPL-2.0-or-later
// What every program under test shares: ask.c reads lines and hands each to answer(), which prints one line.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define NOINLINE __attribute__((noinline))
#define NOCLONE __attribute__((noinline, noclone))
void answer(const char *question);
