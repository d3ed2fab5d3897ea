// A second entry of the function lies within what an entry jump would overwrite (A).
#include "ask.h"

__asm__(".globl second_entry\nsecond_entry = used + 3");
NOCLONE int used(int n) { return n * 21 + 4; }

void answer(const char *question) { printf("%d\n", used(atoi(question))); }
