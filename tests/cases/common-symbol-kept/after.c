// Fixed.
#include "ask.h"

int total;
NOCLONE int add(int n) { return total += n * 10; }

void answer(const char *question) { printf("%d\n", add(atoi(question))); }
