// A case label moves to another branch: the jump table changes and the code does not (D6).
#include "ask.h"

static int log[8];

NOINLINE void act(int what, int n) {
    switch (what) {
    case 0: log[0] += n; break;
    case 1: log[1] -= n * 3; break;
    case 2: log[2] ^= n * 5; break;
    case 3: log[3] *= n + 7; break;
    case 4: log[4] |= n * 9; break;
    case 5: log[5] += n * 11; break;
    case 6: log[5] += n * 11; break;
    }
}

void answer(const char *question) {
    memset(log, 0, sizeof log);
    act(atoi(question), 1);
    printf("%d %d %d\n", log[4], log[5], log[0]);
}
