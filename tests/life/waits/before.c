// A crowd of threads in every kind of wait; the patched function tells what it is and can be slept in (A).
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"
#include "waits.h"

NOCLONE int work(int ms) {
    if (ms) doze(ms);
    return 1;
}

void answer(const char *question) {
    if (!waits_answer(question)) printf("%d\n", work(atoi(question)));
}
