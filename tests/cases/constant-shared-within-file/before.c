// Two functions of the file read the table, and nothing else can: both are replaced together (D104).
#include "ask.h"

static const int weights[8] = {3, 1, 4, 1, 5, 9, 2, 6};

NOINLINE int left(int n) { return weights[n & 7]; }
NOINLINE int right(int n) { return weights[(n + 1) & 7]; }

void answer(const char *question) { printf("%d %d\n", left(atoi(question)), right(atoi(question))); }
