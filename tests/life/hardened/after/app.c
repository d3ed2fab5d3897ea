// Fixed.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"

NOINLINE int value(void) { return 2; }
