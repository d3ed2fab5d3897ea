// Fixed.
#include "ask.h"

NOCLONE int twice(int n) { return n * 2; }
NOCLONE int thrice(int n) { return n * 3; }
int (*operation)(int) = thrice;

void answer(const char *question) {
    if (question[0] == '+') operation = thrice;
    printf("%d\n", operation(atoi(question)));
}
