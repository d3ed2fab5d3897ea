// Fixed.
// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include "ask.h"
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const char *volatile text = "nothing";
static int (*volatile callback)(int);
static int *volatile number;
static volatile int rung;
static timer_t timer;
static int timed, poller = -1, ready = -1;

NOINLINE int work(int n) { return n + 2; }

// A page that is read only most of the time, as hardened programs keep their tables.
static const char **sealed;
NOINLINE void seal(const char *what) {
    if (!sealed) sealed = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(sealed, 4096, PROT_READ | PROT_WRITE);
    sealed[7] = what;
    mprotect(sealed, 4096, PROT_READ);
}

static void on_timer(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    text = info->si_value.sival_ptr;
    rung++;
}

static void prepare(void) {
    struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    poller = epoll_create1(0);
    ready = eventfd(1, 0);
}

// Waits for the timer, which rings in a millisecond from now.
static int ring(void) {
    struct itimerspec soon = {.it_value = {.tv_nsec = 1000000}};
    int before = rung;
    timer_settime(timer, 0, &soon, NULL);
    for (int i = 0; i < 5000 && rung == before; i++) usleep(1000);
    return rung - before;
}

// Overwrites what calls have left behind on the stack and in freed memory.
static NOINLINE void scrub(void) {
    for (unsigned size = 24; size < 512; size += 16) {
        void *volatile freed = malloc(size);
        memset(freed, 0, size);
        free(freed);
    }
    volatile char dead[64 * 1024];
    for (unsigned i = 0; i < sizeof dead; i++) dead[i] = 0;
}

static void forget(void) {
    text = "nothing";
    callback = NULL;
    number = NULL;
    signal(SIGALRM, SIG_DFL);
    epoll_ctl(poller, EPOLL_CTL_DEL, ready, NULL);
    if (timed) timer_delete(timer);
    timed = 0;
    if (sealed) seal("nothing");
}

void answer(const char *question) {
    if (poller < 0) prepare();
    if (!strcmp(question, "text")) {
        puts(text);
    } else if (!strcmp(question, "callback")) {
        printf("%d\n", callback ? callback(5) : -1);
    } else if (!strcmp(question, "number")) {
        printf("%d\n", number ? ++*number : -1);
    } else if (!strcmp(question, "alarm")) {
        raise(SIGALRM);
        printf("%d\n", rung);
    } else if (!strcmp(question, "timer")) {
        printf("%d\n", ring());
    } else if (!strcmp(question, "value")) {
        ring();
        puts(text);
        text = "nothing";
    } else if (!strcmp(question, "epoll")) {
        struct epoll_event event;
        puts(epoll_wait(poller, &event, 1, 0) == 1 ? (char *)event.data.ptr : "nothing");
        event.data.ptr = NULL;
    } else if (!strcmp(question, "sealed")) {
        puts(sealed ? sealed[7] : "nothing");
    } else if (!strcmp(question, "exit")) {
        exit(0);
    } else if (!strcmp(question, "forget")) {
        forget();
        puts("forgotten");
    } else {
        printf("%d\n", work(atoi(question)));
    }
    scrub();
}
