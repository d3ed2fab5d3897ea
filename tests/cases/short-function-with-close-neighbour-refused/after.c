// Fixed.
#include "ask.h"

NOCLONE int tiny(void) { return 1; }
NOCLONE int neighbour(void) { return 5; }

void answer(const char *question) { printf("%d %d\n", tiny() + atoi(question), neighbour()); }
