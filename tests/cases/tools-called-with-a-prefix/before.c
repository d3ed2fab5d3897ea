// The build calls assembler and linker by the long names that cross compilers have (D87).
#include "ask.h"

static int calls;
NOCLONE int price(int n) { return n * 3 + calls++; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
