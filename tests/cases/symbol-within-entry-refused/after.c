// Fixed.
#include "ask.h"

__asm__(".globl second_entry\nsecond_entry = used + 3");
NOCLONE int used(int n) { return n * 23 + 4; }

void answer(const char *question) { printf("%d\n", used(atoi(question))); }
