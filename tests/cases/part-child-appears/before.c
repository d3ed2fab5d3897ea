// After the fix gcc splits the function for partial inlining: a .part child appears and the callers change (D25).
#include "ask.h"

static int table[64];

static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static void refill(int n) {
    for (int i = 0; i < 64; i++) table[i] = i * 31 + n;
    for (int i = 63; i > 0; i--) table[i] ^= table[i - 1] << 3;
    qsort(table, 64, sizeof *table, compare);
}

NOINLINE void one(int n) { refill(n); }
NOINLINE void two(int n) { refill(n + 1); }
NOINLINE void three(int n) { refill(n + 2); }

void answer(const char *question) {
    int n = atoi(question);
    memset(table, 0, sizeof table);
    one(n), two(n), three(n);
    printf("%d\n", table[0] != 0);
}
