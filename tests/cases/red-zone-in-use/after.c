// Fixed.
#include "ask.h"

#include <pthread.h>

static volatile long wrong, rounds;

NOINLINE int changed(int n) { return n + 10; }

/* A leaf function: its array lies below the stack pointer, and nothing else protects it. */
NOINLINE int leaf(int n) {
    volatile int held[20];
    for (int i = 0; i < 20; i++) held[i] = n * i;
    for (int turn = 0; turn < 50; turn++)
        for (int i = 0; i < 20; i++)
            if (held[i] != n * i) return 1;
    return 0;
}

static void *run(void *unused) {
    for (int n = 0;; n++) {
        if (leaf(n & 1023)) wrong++;
        rounds++;
    }
    return unused;
}

void answer(const char *question) {
    pthread_t thread;
    if (!strcmp(question, "start")) {
        for (int i = 0; i < 2; i++)
            if (pthread_create(&thread, NULL, run, NULL)) exit(1);
        puts("started");
    } else {
        long seen = rounds;
        while (rounds == seen) {}
        printf("%d %ld wrong\n", changed(1), wrong);
    }
}
