// The program has no build-id: no process could be known by it (D109).
#include "ask.h"

NOCLONE int price(int n) { return n * 3 + 11; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
