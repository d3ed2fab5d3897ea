// Every one of 64 threads has a stack to be looked at (A).
#include "ask.h"

static NOCLONE int price(int n) { return n * 3; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
