// Fixed.
#include "ask.h"

NOCLONE int twice(int n) { return n * 20; }
NOCLONE int thrice(int n) { return n * 3; }
int (*operation)(int) = twice;

void answer(const char *question) {
    if (question[0] == '+') operation = thrice;
    printf("%d\n", operation(atoi(question)));
}
