// Fixed.
#include "ask.h"

NOCLONE int small(void) { return 14; }
NOCLONE int neighbour(void) { return 5; }

void answer(const char *question) { printf("%d %d\n", small() + atoi(question), neighbour()); }
