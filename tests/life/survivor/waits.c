// SPDX-License-Identifier: GPL-2.0-or-later
// A thread for each kind of wait. Each wait can be ended from here, and only so: a call that comes back by itself, or with
// anything but what it was sent, has been harmed.
#define _GNU_SOURCE
#include "ask.h"
#include "survivor.h"
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum kind { SLEEP, FUTEX, POLL, EPOLL, READ, ACCEPT, SIGTIMEDWAIT, SEMOP, MSGRCV, WAITPID, SIGSUSPEND, FLOCK, RECV,
    RECV_TIMEOUT, SELECT, SLEEP_UNTIL, FUTEX_TIMED, KINDS };

#define ERRNO 4711
#define MILLISECOND 1000000L

static struct waiter {
    atomic_long asked, done, locked_again;
    atomic_int tid, word, child;
    int fds[2], epoll, ipc;
} waiters[KINDS];
static atomic_int own_ipc;

atomic_long eintr, other, registers, wrong_errno, mixtures, turns, spins;

static void need(int good) {
    if (!good) {
        perror("survivor");
        exit(1);
    }
}

static long in_kernel(long number, long a, long b, long c, long d, long e, long f) {
    int intact;
    errno = ERRNO;
    long result = held_call((long[]){ number, a, b, c, d, e, f }, &intact);
    if (!intact) registers++;
    if (errno != ERRNO) wrong_errno++;
    return result;
}

static void prepare(int kind, struct waiter *w) {
    struct sockaddr_un_family { sa_family_t family; } any = { AF_UNIX };
    if (kind == POLL || kind == READ || kind == SELECT || kind == EPOLL) need(!pipe(w->fds));
    if (kind == EPOLL) {
        struct epoll_event event = { .events = EPOLLIN };
        need((w->epoll = epoll_create1(0)) >= 0 && !epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->fds[0], &event));
    }
    if (kind == ACCEPT) {
        w->fds[0] = socket(AF_UNIX, SOCK_STREAM, 0);
        need(!bind(w->fds[0], (void *)&any, sizeof any) && !listen(w->fds[0], 5));
    }
    if (kind == RECV || kind == RECV_TIMEOUT) need(!socketpair(AF_UNIX, SOCK_STREAM, 0, w->fds));
    if (kind == RECV_TIMEOUT) {
        struct timeval hour = { .tv_sec = 3600 };
        need(!setsockopt(w->fds[0], SOL_SOCKET, SO_RCVTIMEO, &hour, sizeof hour));
    }
    if (kind == FLOCK) {
        char path[64];
        w->fds[0] = memfd_create("lock", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", w->fds[0]);
        need((w->fds[1] = open(path, O_RDWR)) >= 0 && !flock(w->fds[0], LOCK_EX));
    }
    if (kind == SEMOP) need((w->ipc = semget(IPC_PRIVATE, 1, 0600)) >= 0);
    if (kind == MSGRCV) need((w->ipc = msgget(IPC_PRIVATE, 0600)) >= 0);
}

static void give_birth(struct waiter *w) {
    int parent = getpid(), child = fork();
    need(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(0);
        for (;;) pause();
    }
    w->child = child;
}

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

// One wait. True when it ended as it must, its event taken.
static int wait_once(int kind, struct waiter *w, long *result) {
    struct timespec hour = { .tv_sec = 3600 }, moment = { .tv_nsec = 10 * MILLISECOND };
    struct pollfd poll = { .fd = w->fds[0], .events = POLLIN };
    struct epoll_event event;
    struct sembuf down = { .sem_op = -1 };
    struct { long type; char text[1]; } message;
    sigset_t set;
    fd_set in;
    long start = now(), until = start + 10 * MILLISECOND, r;
    char byte;
    switch (kind) {
    case SLEEP:
        *result = in_kernel(SYS_nanosleep, (long)&moment, 0, 0, 0, 0, 0);
        return *result == 0 && now() >= until;
    case SLEEP_UNTIL:
        moment = (struct timespec){ until / 1000000000L, until % 1000000000L };
        *result = in_kernel(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, (long)&moment, 0, 0, 0);
        return *result == 0 && now() >= until;
    case FUTEX_TIMED:
        *result = in_kernel(SYS_futex, (long)&w->word, FUTEX_WAIT_PRIVATE, 0, (long)&moment, 0, 0);
        return *result == -ETIMEDOUT && now() >= until;
    case FUTEX:
        *result = in_kernel(SYS_futex, (long)&w->word, FUTEX_WAIT_PRIVATE, (int)w->done, 0, 0, 0);
        return *result == 0 || *result == -EAGAIN;
    case POLL:
#ifdef SYS_poll
        *result = in_kernel(SYS_poll, (long)&poll, 1, -1, 0, 0, 0);
#else
        *result = in_kernel(SYS_ppoll, (long)&poll, 1, 0, 0, 8, 0);
#endif
        return *result == 1 && read(w->fds[0], &byte, 1) == 1;
    case SELECT:
        FD_ZERO(&in);
        FD_SET(w->fds[0], &in);
        *result = in_kernel(SYS_pselect6, w->fds[0] + 1, (long)&in, 0, 0, (long)&hour, 0);
        return *result == 1 && read(w->fds[0], &byte, 1) == 1;
    case EPOLL:
#ifdef SYS_epoll_wait
        *result = in_kernel(SYS_epoll_wait, w->epoll, (long)&event, 1, -1, 0, 0);
#else
        *result = in_kernel(SYS_epoll_pwait, w->epoll, (long)&event, 1, -1, 0, 8);
#endif
        return *result == 1 && read(w->fds[0], &byte, 1) == 1;
    case READ:
        return (*result = in_kernel(SYS_read, w->fds[0], (long)&byte, 1, 0, 0, 0)) == 1;
    case RECV:
    case RECV_TIMEOUT:
        return (*result = in_kernel(SYS_recvfrom, w->fds[0], (long)&byte, 1, 0, 0, 0)) == 1;
    case ACCEPT:
        r = *result = in_kernel(SYS_accept, w->fds[0], 0, 0, 0, 0, 0);
        return r >= 0 && close(r) == 0;
    case SIGTIMEDWAIT:
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        *result = in_kernel(SYS_rt_sigtimedwait, (long)&set, 0, (long)&hour, 8, 0, 0);
        return *result == SIGUSR1;
    case SEMOP:
        return (*result = in_kernel(SYS_semtimedop, w->ipc, (long)&down, 1, (long)&hour, 0, 0)) == 0;
    case MSGRCV:
        return (*result = in_kernel(SYS_msgrcv, w->ipc, (long)&message, 1, 0, 0, 0)) == 1;
    case WAITPID:
        give_birth(w);
        do *result = in_kernel(SYS_wait4, w->child, 0, 0, 0, 0, 0);
        while (*result == -EINTR && eintr++ >= 0);
        // The number is free now; whoever ends the next wait waits for the next child.
        return atomic_exchange(&w->child, 0) == *result;
    case SIGSUSPEND:
        sigfillset(&set);
        sigdelset(&set, SIGUSR2);
        *result = in_kernel(SYS_rt_sigsuspend, (long)&set, 8, 0, 0, 0, 0);
        return *result == -EINTR && w->asked > w->done;
    case FLOCK:
        *result = in_kernel(SYS_flock, w->fds[1], LOCK_EX, 0, 0, 0, 0);
        return *result == 0 && !flock(w->fds[1], LOCK_UN);
    }
    return 0;
}

static int wakes_itself(int kind) { return kind == SLEEP || kind == SLEEP_UNTIL || kind == FUTEX_TIMED; }
static int needs_ipc(int kind) { return kind == SEMOP || kind == MSGRCV; }

_Noreturn void wait_for_ever(int kind) {
    struct waiter *w = &waiters[kind];
    w->tid = gettid();
    for (;;) {
        long result;
        turns++;
        if (wait_once(kind, w, &result) && (wakes_itself(kind) || w->asked > w->done)) {
            w->done++;
            while (kind == FLOCK && w->locked_again < w->done) usleep(100);
        } else if (result == -EINTR) {
            eintr++;
            fprintf(stderr, "survivor: a wait of kind %d was interrupted\n", kind);
        } else {
            other++;
            fprintf(stderr, "survivor: a wait of kind %d ended with %ld\n", kind, result);
        }
    }
}

static void *waiter(void *kind) { wait_for_ever((long)kind); }

static void wake(int kind, struct waiter *w) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    struct sembuf up = { .sem_op = 1 };
    struct { long type; char text[1]; } message = { .type = 1 };
    int fd;
    switch (kind) {
    case FUTEX:
        w->word++;
        syscall(SYS_futex, &w->word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
        break;
    case POLL: case EPOLL: case READ: case SELECT: case RECV: case RECV_TIMEOUT:
        need(write(w->fds[1], "x", 1) == 1);
        break;
    case ACCEPT:
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        need(!getsockname(w->fds[0], (void *)&address, &length) && !connect(fd, (void *)&address, length));
        close(fd);
        break;
    case SIGTIMEDWAIT: case SIGSUSPEND:
        while (!w->tid) usleep(100);
        need(!tgkill(getpid(), w->tid, kind == SIGSUSPEND ? SIGUSR2 : SIGUSR1));
        break;
    case SEMOP:
        need(!semop(w->ipc, &up, 1));
        break;
    case MSGRCV:
        need(!msgsnd(w->ipc, &message, 1, 0));
        break;
    case WAITPID:
        while (!w->child) usleep(100);
        need(!kill(w->child, SIGKILL));
        break;
    case FLOCK:
        need(!flock(w->fds[0], LOCK_UN));
        break;
    }
}

int turn_waiters(void) {
    long wanted[KINDS];
    int stuck = 0;
    for (int kind = 0; kind < KINDS; kind++) {
        struct waiter *w = &waiters[kind];
        wanted[kind] = w->done + 1;
        if (needs_ipc(kind) && !own_ipc) continue;
        w->asked++;
        wake(kind, w);
    }
    for (int kind = 0; kind < KINDS; kind++) {
        struct waiter *w = &waiters[kind];
        if (needs_ipc(kind) && !own_ipc) continue;
        for (int left = 5000; left && w->done < wanted[kind]; left--) usleep(1000);
        if (w->done < wanted[kind]) {
            fprintf(stderr, "survivor: the wait of kind %d does not end\n", kind);
            stuck++;
        } else if (kind == FLOCK) {
            need(!flock(w->fds[0], LOCK_EX));
            w->locked_again++;
        }
    }
    return stuck;
}

static void nothing(int signal) { (void)signal; }

int start_waiters(int first) {
    pthread_attr_t small;
    sigset_t both;
    sigemptyset(&both);
    sigaddset(&both, SIGUSR1);
    sigaddset(&both, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &both, NULL);
    signal(SIGUSR2, nothing);
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    // In a namespace of its own, so that nothing is left when this program is killed.
    own_ipc = !unshare(CLONE_NEWIPC);
    for (int i = 0; i < KINDS; i++) {
        // In another order each time: an applier borrows the first thread that is fit.
        int kind = (first + i) % KINDS;
        pthread_t thread;
        if (needs_ipc(kind) && !own_ipc) {
            if (i == 0) first++;
            continue;
        }
        prepare(kind, &waiters[kind]);
        if (kind != first % KINDS) need(!pthread_create(&thread, &small, waiter, (void *)(long)kind));
    }
    return first % KINDS;
}
