// Fixed.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"
#include "waits.h"

NOCLONE int work(int ms) {
    if (ms) doze(ms);
    return 2;
}

void answer(const char *question) {
    if (!waits_answer(question)) printf("%d\n", work(atoi(question)));
}
