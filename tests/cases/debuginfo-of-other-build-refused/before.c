// The file with the symbols belongs to another build than production (D80).
#include "ask.h"

NOINLINE int price(int n) { return n * 3; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
