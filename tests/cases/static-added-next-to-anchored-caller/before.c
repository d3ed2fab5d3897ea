// The fix adds a variable next to one that is reached through an address for several, and a caller that stays does likewise (D99).
#include "ask.h"

static int first = 1, second = 2;
static int used;
NOCLONE int count(int n) {
    used += n;
    return used;
}

void answer(const char *question) {
    int n = atoi(question);
    first += n;
    second += first;
    printf("%d %d\n", count(n), second);
}
