// A double lives in .rodata.cst8, merged with its equals; the code that loads it stays the same (D4).
#include "ask.h"

NOINLINE double tax(double price) { return price * 1.19; }

void answer(const char *question) { printf("%.2f\n", tax(atof(question))); }
