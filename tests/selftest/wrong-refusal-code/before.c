// It is refused, and with another code.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"

int limit = 10;

void answer(const char *question) { printf("%d\n", atoi(question) + limit++); }
