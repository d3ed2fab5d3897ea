// The entry jump would lie on two pages, and a write that is cut short would leave half of it (A).
#include "ask.h"

// Brings the function right before the end of a page.
__asm__(".section .text.page, \"ax\"\n.balign 4096\n.skip 4093");
__attribute__((section(".text.page"))) NOCLONE int used(int n) { return n * 21 + 4; }

void answer(const char *question) { printf("%d\n", used(atoi(question))); }
