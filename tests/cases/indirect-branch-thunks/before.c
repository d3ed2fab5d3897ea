// Indirect calls go through thunks of which every object brings a copy (D66).
#include "ask.h"

static NOCLONE int plain(int n) { return n * 3 + 1; }
static int (*volatile hook)(int) = plain;
NOCLONE int price(int n) { return hook(n) + 100; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
