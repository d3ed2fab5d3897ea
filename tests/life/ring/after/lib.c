// Fixed.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ring.h"

extern link_fn *plugin_first;
int l1(int), l2(int), l3(int), l4(int);
#define VERSION 2
LINK(l0, l1)
LINK(l1, l2)
LINK(l2, l3)
LINK(l3, l4)
LINK(l4, plugin_first)
