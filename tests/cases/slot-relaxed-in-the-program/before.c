// The object reaches a variable through a slot, and the linker found it near enough to leave the slot out (D102).
#include "ask.h"

extern int total;
int step(int n);
NOCLONE int add(int n) { return total += step(n); }

void answer(const char *question) { printf("%d\n", add(atoi(question))); }
