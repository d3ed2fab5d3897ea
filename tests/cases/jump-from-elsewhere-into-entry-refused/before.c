// Hand-written code jumps behind the first instruction of the function, into what an entry jump would overwrite (A).
#include "ask.h"

NOCLONE int used(int n) { return n * 21 + 4; }

void answer(const char *question) {
    if (question[0] == '!') __asm__ volatile("jmp used + 3");
    printf("%d\n", used(atoi(question)));
}
