// Fixed.
#include "ask.h"

extern int total;
int step(int n);
NOCLONE int add(int n) { return total += step(n) * 10; }

void answer(const char *question) { printf("%d\n", add(atoi(question))); }
