#include "ask.h"
#include "limit.h"

int other(int n);

NOINLINE int here(int n) { return limit(n) + 1; }

void answer(const char *question) {
    int n = atoi(question);
    printf("%d %d\n", here(n), other(n));
}
