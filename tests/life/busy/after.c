// Fixed.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"

#include <pthread.h>
#include <unistd.h>

NOINLINE int hot(int n) {
    int sum = n;
    for (int i = 0; i < 50; i++) sum = sum * 31 + i;
    return sum ? 11 : 12;
}

NOINLINE int elsewhere(int n) {
    int sum = n;
    for (int i = 0; i < 50; i++) sum = sum * 37 + i;
    return sum ? 1 : 2;
}

NOINLINE int asleep(int n) {
    int left = 1000000 * n;
    while (left > 0) left -= usleep(200000) ? 0 : 1;
    return 1;
}

NOINLINE int forever(volatile long *turns) {
    for (;;) {
        pause();
        ++*turns;
    }
}

static volatile int keep = 1;
static volatile long turns;

static void *loop(void *unused) {
    while (keep) keep = hot(keep) != 0;
    return unused;
}

static void *half(void *unused) {
    while (keep) keep = hot(keep) != 0 && elsewhere(keep) != 0;
    return unused;
}

NOINLINE void *caller_of_asleep(void *unused) {
    if (asleep(1) != 1) exit(1);
    return unused;
}

static void *ever(void *unused) {
    if (forever(&turns)) exit(1);
    return unused;
}

void answer(const char *question) {
    int count = atoi(strchr(question, ' ') ? strchr(question, ' ') : "1");
    void *(*body)(void *) = *question == 'l'   ? loop
                            : *question == 'h' ? half
                            : *question == 'a' ? caller_of_asleep
                            : *question == 'e' ? ever
                                               : 0;
    for (int i = 0; body && i < count; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, body, NULL)) exit(1);
    }
    if (body) usleep(50000);
    printf("%d %d\n", hot(1), asleep(0));
}
