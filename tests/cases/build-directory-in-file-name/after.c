// Fixed.
#include "ask.h"

NOCLONE const char *where(void) { return strrchr(__FILE__, '/') + 1; }


NOCLONE int price(int n) { return n * 3 + (where()[0] == 'm'); }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
