// Fixed.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct parked {
    pthread_t thread;
    _Atomic int tid, leave;
} parked[8];
static int count;

NOINLINE int price(int n) { return n * 4; }

static void *park(void *self) {
    struct parked *p = self;
    p->tid = syscall(SYS_gettid);
    while (!p->leave) usleep(1000);
    return NULL;
}

static void *serve(void *unused) {
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        answer(line);
    }
    exit(0);
    return unused;
}

// "park": one more thread, its number. "end N": that thread ends. "first ends": the first thread ends, another one serves.
void answer(const char *question) {
    if (!strcmp(question, "park")) {
        struct parked *p = &parked[count++];
        if (pthread_create(&p->thread, NULL, park, p)) exit(1);
        while (!p->tid) usleep(100);
        printf("%d\n", p->tid);
    } else if (!strncmp(question, "end ", 4)) {
        for (int i = 0; i < count; i++) {
            if (parked[i].tid != atoi(question + 4)) continue;
            parked[i].leave = 1;
            pthread_join(parked[i].thread, NULL);
            puts("ok");
        }
    } else if (!strcmp(question, "first ends")) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, NULL)) exit(1);
        puts("ok");
        pthread_exit(NULL);
    } else if (!strcmp(question, "exit")) {
        exit(0);
    } else {
        printf("%d\n", price(atoi(question)));
    }
}
