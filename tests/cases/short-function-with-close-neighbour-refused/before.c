// A function of three bytes with the next one right behind it: a jump would run over the neighbour (A).
#include "ask.h"

NOCLONE int tiny(void) { return 0; }
NOCLONE int neighbour(void) { return 5; }

void answer(const char *question) { printf("%d %d\n", tiny() + atoi(question), neighbour()); }
