// Production is stripped and nobody kept the symbols: a rebuild with the same build-id has them (D54).
#include "ask.h"

static NOCLONE int price(int n) { return n * 3; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
