#include "ask.h"

int a(int n), b(int n);

void answer(const char *question) {
    int n = atoi(question);
    printf("%d %d\n", a(n), b(n));
}
