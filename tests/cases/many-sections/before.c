// The object has more sections than a 16-bit number counts (D93).
#include "ask.h"

NOCLONE int price(int n) { return n * 3 + 11; }
__asm__(".pushsection .text\n.include \"many.inc\"\n.popsection");

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
