// Fixed.
#include "ask.h"

#include <pthread.h>
#include <stdatomic.h>

static atomic_long rounds;

NOINLINE unsigned churn(unsigned n) {
    for (int i = 0; i < 64; i++) n = n * 1103515245u + 12345u;
    return (n & 1) + 10;
}

static void *run(void *unused) {
    for (unsigned n = 0;; n++) {
        atomic_fetch_add(&rounds, 1);
        churn(n);
    }
    return unused;
}

void answer(const char *question) {
    static int started;
    for (; started < 2; started++) {
        pthread_t thread;
        pthread_create(&thread, NULL, run, NULL);
    }
    long then = atomic_load(&rounds);
    while (atomic_load(&rounds) == then) {}
    printf("%d\n", (int)churn(atoi(question)));
}
