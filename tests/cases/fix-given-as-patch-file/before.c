// The fix comes as a patch file in place of a second tree (A).
#include "ask.h"

static NOCLONE int price(int n) { return n * 3; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
