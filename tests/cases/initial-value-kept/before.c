// The same variable with the same initial value, used by a changed function, is the running one (D11).
#include "ask.h"

int limit = 10;

NOINLINE int clamp(int n) { return n > limit ? limit : n; }

void answer(const char *question) {
    if (question[0] == '+') limit++;
    printf("%d\n", clamp(atoi(question)));
}
