// The compiler was led by a profile: the same profile leads the compile of the fix (D84).
#include "ask.h"

static NOCLONE int rare(int n) { return n * 9 + 1; }
NOCLONE int price(int n) {
    if (n > 1000) return rare(n);
    int sum = 0;
    for (int i = 0; i < n; i++) sum += i * 3;
    return sum;
}

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
