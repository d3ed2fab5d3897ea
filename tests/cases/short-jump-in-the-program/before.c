// In the program a tail call is a short jump to the neighbour; compiled by itself it is a long one (D103).
#include "ask.h"

static int calls;
static NOCLONE int last(int n) { return n * 7 + calls++; }
NOCLONE int price(int n) { return last(n + 1); }
NOCLONE int other(int n) { return last(n + 2); }

void answer(const char *question) { int a = price(atoi(question)); printf("%d %d\n", a, other(1)); }
