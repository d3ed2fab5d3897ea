// Fixed.
#include "ask.h"

NOCLONE int used(int n) { return n * 23 + 4; }

void answer(const char *question) {
    if (question[0] == '!') __asm__ volatile("jmp used + 3");
    printf("%d\n", used(atoi(question)));
}
