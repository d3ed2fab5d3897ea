#include "ask.h"

int part(int n);
__attribute__((visibility("hidden"))) int rate(int n);
void answer(const char *question) {
    int n = atoi(question);
    int a = rate(n);
    printf("%d %d\n", a, part(n));
}
