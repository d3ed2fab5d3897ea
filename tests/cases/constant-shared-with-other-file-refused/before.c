// Another file reads the same constant table and would go on reading the old one (D104).
#include "ask.h"

const int weights[4] = {1, 2, 3, 4};
int other(int n);

NOINLINE int weigh(int n) { return weights[n & 3]; }

void answer(const char *question) { printf("%d %d\n", weigh(atoi(question)), other(atoi(question))); }
