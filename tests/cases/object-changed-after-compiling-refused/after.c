// Fixed.
#include "ask.h"

NOCLONE int rate(int n) { return n * 4 + 11; }

void answer(const char *question) { printf("%d\n", rate(atoi(question))); }
