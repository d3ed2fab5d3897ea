// Fixed.
#include "ask.h"

int limit = 20;

NOINLINE int clamp(int n) { return n > limit ? limit + 1000 : n; }

void answer(const char *question) {
    if (question[0] == '+') limit++;
    printf("%d\n", clamp(atoi(question)));
}
