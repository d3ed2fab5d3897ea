// Fixed.
#include "ask.h"

static NOCLONE int mix(int n) { 
    unsigned u = (unsigned)n;
    for (unsigned i = 1, j = 7, k = 5, l = 3, m = 11; i < 40; i++) {
        j = j * k + l, k ^= m + u, l += j >> 3, m = m * 5 + k, u += (j ^ l ^ m) & 1;
    }
    return (int)(u - u % 7 + 3); }

NOINLINE int keep(int a, int b, int c, int d) {
    int first = mix(a);
    return first * 1000 + b * 100 + c * 10 + d;
}

void answer(const char *question) { printf("%d\n", keep(atoi(question), 2, 3, 4)); }
