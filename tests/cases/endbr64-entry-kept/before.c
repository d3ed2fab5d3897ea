// The entry is a landing pad of control-flow enforcement, which stays in front of the jump (A).
#include "ask.h"

static NOCLONE int price(int n) { return n * 3; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
