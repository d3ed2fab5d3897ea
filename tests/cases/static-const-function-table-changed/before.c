// The table holds addresses that the loader fills in; only its relocations change (D9).
#include "ask.h"

static NOCLONE int twice(int n) { return n * 2; }
static NOCLONE int thrice(int n) { return n * 3; }
static NOCLONE int negate(int n) { return -n; }
static int (*const operations[])(int) = {twice, thrice, negate, twice};

NOINLINE int operate(int n) { return operations[n & 3](n); }

void answer(const char *question) { printf("%d\n", operate(atoi(question))); }
