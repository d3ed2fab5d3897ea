// The running pointer leads to the old entry, and from there to the new code (D16).
#include "ask.h"

NOCLONE int twice(int n) { return n * 2; }
NOCLONE int thrice(int n) { return n * 3; }
int (*operation)(int) = twice;

void answer(const char *question) {
    if (question[0] == '+') operation = thrice;
    printf("%d\n", operation(atoi(question)));
}
