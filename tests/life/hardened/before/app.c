// The function that is patched in a process that hardens itself, or is odd in some way (A).
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"

NOINLINE int value(void) { return 1; }
