// A variable without initial value is a common symbol that the linker places (D69).
#include "ask.h"

int total;
NOCLONE int add(int n) { return total += n; }

void answer(const char *question) { printf("%d\n", add(atoi(question))); }
