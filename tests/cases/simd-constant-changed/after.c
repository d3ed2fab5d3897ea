// Fixed.
#include "ask.h"

typedef int four __attribute__((vector_size(16)));

NOINLINE four shift(four v) { return v + (four){1, 2, 7, 4}; }

void answer(const char *question) {
    int n = atoi(question);
    four v = shift((four){n, n, n, n});
    printf("%d %d %d %d\n", v[0], v[1], v[2], v[3]);
}
