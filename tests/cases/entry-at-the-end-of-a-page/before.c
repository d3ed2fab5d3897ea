// The entry jump ends with the page: the function goes on on the next one (A).
#include "ask.h"

// Brings the function right before the end of a page.
#ifdef __loongarch__
__asm__(".section .text.page, \"ax\"\n.balign 4096\n.skip 4092");
#else
__asm__(".section .text.page, \"ax\"\n.balign 4096\n.skip 4091");
#endif
__attribute__((section(".text.page"))) NOCLONE int used(int n) { return n * 21 + 4; }

void answer(const char *question) { printf("%d\n", used(atoi(question))); }
