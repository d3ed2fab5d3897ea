// Fixed.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS 12
static struct worker {
    int pid;
    _Atomic long turns;
    _Atomic int price;
} *workers;
static pthread_mutex_t nursing = PTHREAD_MUTEX_INITIALIZER;
static _Atomic long born;
static long pause_us;

NOINLINE int price(int n) { return n * 4; }

// No worker outlives the master.
static void work(struct worker *w, int master) {
    while (getppid() == master) {
        w->price = price(5);
        w->turns++;
        usleep(500);
    }
    _exit(0);
}

static void *nurse(void *unused) {
    for (int i = 0;; i = (i + 1) % WORKERS) {
        struct worker *w = &workers[i];
        pthread_mutex_lock(&nursing);
        if (w->pid) {
            kill(w->pid, SIGKILL);
            waitpid(w->pid, NULL, 0);
        }
        w->turns = 0;
        int master = getpid(), pid = fork();
        if (pid == 0) work(w, master);
        if (pid < 0) exit(1);
        w->pid = pid;
        born++;
        pthread_mutex_unlock(&nursing);
        usleep(pause_us);
    }
    return unused;
}

// "start US": a birth every so often. Whatever else is asked: who of those that live now has the old code and who the new,
// the master included, and how many were born so far.
void answer(const char *question) {
    if (!strncmp(question, "start ", 6)) {
        pthread_t thread;
        pause_us = atol(question + 6);
        workers = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (workers == MAP_FAILED || pthread_create(&thread, NULL, nurse, NULL)) exit(1);
        while (born < WORKERS) usleep(1000);
    }
    int old = 0, new = 0, mine = price(5);
    pthread_mutex_lock(&nursing);
    for (int i = 0; i < WORKERS; i++) {
        struct worker *w = &workers[i];
        for (long before = w->turns; w->turns < before + 2;) usleep(200);
        old += w->price == 15;
        new += w->price == 20;
    }
    pthread_mutex_unlock(&nursing);
    printf("%d old %d new %ld born\n", old + (mine == 15), new + (mine == 20), born);
}
