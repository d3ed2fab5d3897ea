// Fixed.
#include "ask.h"

NOCLONE int fill(char *buffer, int n) { return snprintf(buffer, 16, "%d", n); }
NOCLONE int price(int n) { char buffer[16]; return fill(buffer, n) + buffer[0] + 1; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
