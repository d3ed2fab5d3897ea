// Fixed.
#include "ask.h"

NOCLONE int price(int n) { return n * 4 + 11; }
__asm__(".pushsection .text\n.include \"many.inc\"\n.popsection");

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
