// Fixed.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ring.h"

int a1(int), a2(int), a3(int), a4(int), a5(int), l0(int);
#define VERSION 2
LINK(a0, a1)
LINK(a1, a2)
LINK(a2, a3)
LINK(a3, a4)
LINK(a4, a5)
LINK(a5, l0)
