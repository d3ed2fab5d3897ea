// The table of labels belongs to the function: the new one has its own, and nothing leads into the old body (D59).
#include "ask.h"

NOINLINE int machine(const char *code) {
    static const void *const labels[] = {&&add, &&twice, &&negate, &&end};
    int value = 1;
#define NEXT goto *labels[*code == 'a' ? 0 : *code == 't' ? 1 : *code == 'n' ? 2 : 3]
    NEXT;
add:
    value += 3;
    code++;
    NEXT;
twice:
    value *= 2;
    code++;
    NEXT;
negate:
    value = -value;
    code++;
    NEXT;
end:
    return value;
}

void answer(const char *question) { printf("%d\n", machine(question)); }
