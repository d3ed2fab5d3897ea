// A writable pointer has been filled in already: pointing it elsewhere in the source does nothing (D16).
#include "ask.h"

NOCLONE int twice(int n) { return n * 2; }
NOCLONE int thrice(int n) { return n * 3; }
int (*operation)(int) = twice;

void answer(const char *question) {
    if (question[0] == '+') operation = thrice;
    printf("%d\n", operation(atoi(question)));
}
