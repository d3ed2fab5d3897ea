// Code that expects another initial value would meet the old one (D12).
#include "ask.h"

int limit = 10;

NOINLINE int clamp(int n) { return n > limit ? limit : n; }

void answer(const char *question) {
    if (question[0] == '+') limit++;
    printf("%d\n", clamp(atoi(question)));
}
