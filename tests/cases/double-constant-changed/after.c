// Fixed.
#include "ask.h"

NOINLINE double tax(double price) { return price * 1.07; }

void answer(const char *question) { printf("%.2f\n", tax(atof(question))); }
