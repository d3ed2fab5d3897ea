// Functions that agree on what lies in the data between them: new code on old data, and the other way round, is seen (A).
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"
#include <pthread.h>
#include <unistd.h>

struct account {
    int number;
    long balance;
};
static struct account accounts[4] = {{.number = 0}, {.number = 1}, {.number = 2}, {.number = 3}};
static _Atomic long mixtures, rounds[4];
static _Atomic int version[4];

NOINLINE void put(struct account *a, long n) { a->balance = n; }
NOINLINE long get(const struct account *a) { return a->balance; }
NOINLINE int turn(struct account *a, long n) {
    put(a, n);
    return get(a) == n ? 1 : 0;
}

static void *runner(void *which) {
    struct account *a = which;
    for (long n = 1;; n++) {
        int seen = turn(a, n);
        version[a->number] = seen;
        mixtures += seen == 0;
        rounds[a->number]++;
        usleep(a->number * 40);
    }
    return NULL;
}

// Whatever is asked: mixtures so far, and what each thread saw in a turn that it began after the question.
void answer(const char *question) {
    if (!strcmp(question, "start"))
        for (int i = 0; i < 4; i++) {
            pthread_t thread;
            if (pthread_create(&thread, NULL, runner, &accounts[i])) exit(1);
        }
    for (int i = 0; i < 4; i++)
        for (long before = rounds[i]; rounds[i] < before + 2;) usleep(100);
    printf("mixtures %ld versions %d %d %d %d\n", mixtures, version[0], version[1], version[2], version[3]);
}
