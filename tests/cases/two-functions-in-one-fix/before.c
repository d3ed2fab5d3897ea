// Both functions switch under one stop: the new caller hands on what only the new callee understands (A).
#include "ask.h"

NOINLINE int decode(int n) { return n - 1; }
NOINLINE int encode(int n) { return n + 1; }

void answer(const char *question) { printf("%d %d\n", decode(encode(atoi(question))), encode(1)); }
