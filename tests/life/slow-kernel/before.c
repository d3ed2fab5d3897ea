// A thread keeps the kernel from mapping anything for long stretches, so that the system calls of an apply take their time (A).
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

NOINLINE int used(int n) { return n + 1; }

static const size_t room = 2ul << 30;

// Changing the protection of that many pages takes the kernel some thirty milliseconds; all are the one page of zeros.
static void *churn(void *area) {
    for (int rights = PROT_READ;; rights ^= PROT_READ) {
        mprotect(area, room, rights);
        usleep(rand() % 3000);
    }
    return NULL;
}

void answer(const char *question) {
    static volatile char sum;
    if (!strcmp(question, "start")) {
        char *area = mmap(NULL, room, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (area == MAP_FAILED) {
            puts("no room");
            return;
        }
        madvise(area, room, MADV_NOHUGEPAGE);
        for (size_t at = 0; at < room; at += 4096) sum += area[at];
        pthread_t thread;
        pthread_create(&thread, NULL, churn, area);
    }
    printf("%d\n", used(1));
}
