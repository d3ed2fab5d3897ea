// Two files have the common symbol, and the larger one decides (D69).
#include "ask.h"

int total;
int other(int n);
NOCLONE int add(int n) { return total += n; }
void answer(const char *question) { int n = add(atoi(question)); printf("%d %d\n", n, other(1)); }
