// The build renames a symbol in the object behind the compiler: what was compiled is not what was linked (E-NOT-LINKED).
#include "ask.h"

NOCLONE int rate(int n) { return n * 3 + 11; }

void answer(const char *question) { printf("%d\n", rate(atoi(question))); }
