#include "ask.h"

int one(int n);
int two(int n);
void answer(const char *question) {
    int n = atoi(question);
    int a = one(n);
    printf("%d %d\n", a, two(n));
}
