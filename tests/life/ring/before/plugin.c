// Sixteen functions in three files that check each other all the time: any mixture is seen (A).
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ring.h"

int a0(int), p1(int), p2(int), p3(int), p4(int);
#define VERSION 1
LINK(p0, p1)
LINK(p1, p2)
LINK(p2, p3)
LINK(p3, p4)
LINK(p4, a0)
