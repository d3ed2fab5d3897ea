// The name of the source file, with the directory of the build, is part of the program (D75).
#include "ask.h"

NOCLONE const char *where(void) { return strrchr(__FILE__, '/') + 1; }
NOCLONE int price(int n) { return n * 3 + (where()[0] == 'm'); }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
