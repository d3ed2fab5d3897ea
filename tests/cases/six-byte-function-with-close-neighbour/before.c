// Six bytes hold a jump, and the neighbour right behind it stays as it is (A).
#include "ask.h"

NOCLONE int small(void) { return 4; }
NOCLONE int neighbour(void) { return 5; }

void answer(const char *question) { printf("%d %d\n", small() + atoi(question), neighbour()); }
