// SPDX-License-Identifier: GPL-2.0-or-later
// Threads in every kind of wait. Each counts what a program must never see of a patcher: an EINTR without a signal, a wait that
// ends early, and how late the latest one ended. Nothing else ever wakes them.
#define _GNU_SOURCE
#include "waits.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// What becomes of a wait that a tracer interrupts: the kernel restarts it with the time that is left (KEPT), it has no timeout
// (OPEN), or the kernel ends it with EINTR and ulp-apply has it start over (CURED, and CURED_OPEN without a timeout).
enum class { KEPT, OPEN, CURED, CURED_OPEN };
static const char *const classes[] = {"kept", "open", "cured", "cured-open"};

struct wait;
struct kind {
    const char *name;
    enum class class;
    long (*once)(struct wait *);
};

struct wait {
    const struct kind *kind;
    int ms, fd, peer;
    uint32_t word;
    atomic_long eintr, early, timeouts, other, late, latest;
};

static struct wait *waits;
static int wait_count, sem, queue, lock_fd, lock_other;
static pid_t keeper;
static aio_context_t aio;

static long long now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static struct timespec span(int ms) { return (struct timespec){ms / 1000, ms % 1000 * 1000000L}; }

void doze(int ms) {
    long long end = now_us() + ms * 1000LL;
    // One long sleep: a thread that wakes up now and then would be found out of the function sooner or later.
    struct timespec until = {end / 1000000, end % 1000000 * 1000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL)) {}
}

static void must(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "waits: %s: %s\n", what, strerror(errno));
    _exit(1);
}

static long futex(struct wait *w, const struct timespec *time) {
    return syscall(SYS_futex, &w->word, FUTEX_WAIT_PRIVATE, 0, time, NULL, 0);
}
static long futex_open(struct wait *w) { return futex(w, NULL); }
static long futex_timed(struct wait *w) { struct timespec t = span(w->ms); return futex(w, &t); }
static long futex_until(struct wait *w) {
    long long end = now_us() + w->ms * 1000LL;
    struct timespec t = {end / 1000000, end % 1000000 * 1000};
    return syscall(SYS_futex, &w->word, FUTEX_WAIT_BITSET_PRIVATE, 0, &t, NULL, FUTEX_BITSET_MATCH_ANY);
}
static long sleep_plain(struct wait *w) { struct timespec t = span(w->ms); return syscall(SYS_nanosleep, &t, NULL); }
static long sleep_clock(struct wait *w) {
    struct timespec t = span(w->ms);
    return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &t, NULL);
}
static long sleep_until(struct wait *w) {
    long long end = now_us() + w->ms * 1000LL;
    struct timespec t = {end / 1000000, end % 1000000 * 1000};
    return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}
static long poll_timed(struct wait *w) {
    struct pollfd p = {w->fd, POLLIN, 0};
    return poll(&p, 1, w->ms);
}
static long poll_open(struct wait *w) {
    struct pollfd p = {w->fd, POLLIN, 0};
    return poll(&p, 1, -1);
}
static long ppoll_timed(struct wait *w) {
    struct pollfd p = {w->fd, POLLIN, 0};
    struct timespec t = span(w->ms);
    return ppoll(&p, 1, &t, NULL);
}
static long select_timed(struct wait *w) {
    struct timeval t = {w->ms / 1000, w->ms % 1000 * 1000};
    return select(0, NULL, NULL, NULL, &t);
}
static long pselect_timed(struct wait *w) {
    struct timespec t = span(w->ms);
    return pselect(0, NULL, NULL, NULL, &t, NULL);
}
static long read_open(struct wait *w) { uint64_t v; return read(w->fd, &v, sizeof v); }
static long recv_open(struct wait *w) { char c; return recv(w->fd, &c, 1, 0); }
static long accept_open(struct wait *w) { return accept(w->fd, NULL, NULL); }
static long pause_open(struct wait *w) { (void)w; return pause(); }
static long wait_open(struct wait *w) {
    (void)w;
    siginfo_t info;
    return waitid(P_PID, keeper, &info, WEXITED | WNOWAIT);
}
static long message_open(struct wait *w) {
    struct { long type; char text[8]; } message;
    (void)w;
    return msgrcv(queue, &message, sizeof message.text, 0, 0);
}
static long flock_open(struct wait *w) { (void)w; return flock(lock_other, LOCK_EX); }
static long fcntl_open(struct wait *w) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    (void)w;
    return fcntl(lock_other, F_OFD_SETLKW, &lock);
}

static struct epoll_event event;
static long epoll_plain(struct wait *w) { return syscall(SYS_epoll_wait, w->peer, &event, 1, w->ms); }
static long epoll_open(struct wait *w) { return syscall(SYS_epoll_wait, w->peer, &event, 1, -1); }
static long epoll_masked(struct wait *w) { return syscall(SYS_epoll_pwait, w->peer, &event, 1, w->ms, NULL, 8); }
static long epoll_masked2(struct wait *w) {
    struct timespec t = span(w->ms);
    return syscall(SYS_epoll_pwait2, w->peer, &event, 1, &t, NULL, 8);
}
static struct msghdr message_of(struct iovec *piece, char *c) {
    *piece = (struct iovec){c, 1};
    return (struct msghdr){.msg_iov = piece, .msg_iovlen = 1};
}
static long recv_timed(struct wait *w) { return recv_open(w); }
static long recvmsg_timed(struct wait *w) {
    char c;
    struct iovec piece;
    struct msghdr m = message_of(&piece, &c);
    return syscall(SYS_recvmsg, w->fd, &m, 0);
}
static long recvmmsg_timed(struct wait *w) {
    char c;
    struct iovec piece;
    struct mmsghdr m = {.msg_hdr = message_of(&piece, &c)};
    return syscall(SYS_recvmmsg, w->fd, &m, 1, 0, NULL);
}
static long accept_timed(struct wait *w) { return syscall(SYS_accept, w->fd, NULL, NULL); }
static long accept4_timed(struct wait *w) { return syscall(SYS_accept4, w->fd, NULL, NULL, 0); }
static long sendto_timed(struct wait *w) { return syscall(SYS_sendto, w->fd, "x", 1, 0, NULL, 0); }
static long sendmsg_timed(struct wait *w) {
    char c = 'x';
    struct iovec piece;
    struct msghdr m = message_of(&piece, &c);
    return syscall(SYS_sendmsg, w->fd, &m, 0);
}
static long sigwait_timed(struct wait *w) {
    sigset_t set;
    struct timespec t = span(w->ms);
    sigemptyset(&set);
    sigaddset(&set, SIGURG);
    return syscall(SYS_rt_sigtimedwait, &set, NULL, &t, 8);
}
static struct sembuf take = {0, -1, 0};
static long semop_open(struct wait *w) { (void)w; return syscall(SYS_semop, sem, &take, 1); }
static long semop_timed(struct wait *w) { struct timespec t = span(w->ms); return syscall(SYS_semtimedop, sem, &take, 1, &t); }
static long aio_timed(struct wait *w) {
    struct timespec t = span(w->ms);
    struct io_event done;
    return syscall(SYS_io_getevents, aio, 1, 1, &done, &t);
}

static const struct kind kinds[] = {
    {"futex", OPEN, futex_open}, {"futex timed", KEPT, futex_timed}, {"futex until", KEPT, futex_until},
    {"nanosleep", KEPT, sleep_plain}, {"clock_nanosleep", KEPT, sleep_clock}, {"clock_nanosleep until", KEPT, sleep_until},
    {"poll", OPEN, poll_open}, {"poll timed", KEPT, poll_timed}, {"ppoll timed", KEPT, ppoll_timed},
    {"select timed", KEPT, select_timed}, {"pselect timed", KEPT, pselect_timed}, {"read", OPEN, read_open},
    {"recv", OPEN, recv_open}, {"accept", OPEN, accept_open}, {"pause", OPEN, pause_open}, {"waitid", OPEN, wait_open},
    {"msgrcv", OPEN, message_open}, {"flock", OPEN, flock_open}, {"fcntl lock", OPEN, fcntl_open},
    {"epoll_wait", CURED, epoll_plain}, {"epoll_wait open", CURED_OPEN, epoll_open}, {"epoll_pwait", CURED, epoll_masked},
    {"epoll_pwait2", CURED, epoll_masked2}, {"recvfrom", CURED, recv_timed}, {"recvmsg", CURED, recvmsg_timed},
    {"recvmmsg", CURED, recvmmsg_timed}, {"accept timed", CURED, accept_timed}, {"accept4", CURED, accept4_timed},
    {"sendto", CURED, sendto_timed}, {"sendmsg", CURED, sendmsg_timed}, {"rt_sigtimedwait", CURED, sigwait_timed},
    {"semop", CURED_OPEN, semop_open}, {"semtimedop", CURED, semop_timed}, {"io_getevents", CURED, aio_timed},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void timeout_of(struct wait *w, int option) {
    struct timeval t = {w->ms / 1000, w->ms % 1000 * 1000};
    must(!setsockopt(w->fd, SOL_SOCKET, option, &t, sizeof t), "setsockopt");
}

static void prepare(struct wait *w) {
    int pair[2];
    long (*once)(struct wait *) = w->kind->once;
    if (once == accept_open || once == accept_timed || once == accept4_timed) {
        w->fd = socket(AF_UNIX, SOCK_STREAM, 0);
        struct sockaddr_un any = {.sun_family = AF_UNIX};
        must(w->fd >= 0 && !bind(w->fd, (struct sockaddr *)&any, sizeof(sa_family_t)) && !listen(w->fd, 1), "listen");
        if (once != accept_open) timeout_of(w, SO_RCVTIMEO);
    } else if (once == recv_open || once == recv_timed || once == recvmsg_timed || once == recvmmsg_timed) {
        must(!socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), "socketpair");
        w->fd = pair[0], w->peer = pair[1];
        if (once != recv_open) timeout_of(w, SO_RCVTIMEO);
    } else if (once == sendto_timed || once == sendmsg_timed) {
        must(!socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), "socketpair");
        w->fd = pair[0], w->peer = pair[1];
        while (send(w->fd, "x", 1, MSG_DONTWAIT) == 1) {}
        timeout_of(w, SO_SNDTIMEO);
    } else if (once == epoll_plain || once == epoll_open || once == epoll_masked || once == epoll_masked2) {
        struct epoll_event readable = {.events = EPOLLIN};
        w->fd = eventfd(0, 0), w->peer = epoll_create1(0);
        must(w->peer >= 0 && !epoll_ctl(w->peer, EPOLL_CTL_ADD, w->fd, &readable), "epoll");
    } else if (once == poll_open || once == poll_timed || once == ppoll_timed || once == read_open) {
        must((w->fd = eventfd(0, 0)) >= 0, "eventfd");
    }
}

// Timers that count in jiffies may end within one jiffy of their time; HZ is at least 100.
enum { JIFFY_US = 10000 };

static void *wait_on(void *argument) {
    struct wait *w = argument;
    for (;;) {
        long long began = now_us();
        long result = w->kind->once(w);
        int error = result < 0 ? errno : 0;
        long long took = now_us() - began;
        if (error == EINTR) {
            w->eintr++;
        } else if (!w->ms || (result > 0 || (error && error != ETIMEDOUT && error != EAGAIN))) {
            if (!w->other++) fprintf(stderr, "waits: %s gave %ld: %s\n", w->kind->name, result, strerror(error));
            usleep(10000);
        } else {
            long permille = took / w->ms;
            w->timeouts++;
            if (took + JIFFY_US < w->ms * 1000LL) w->early++;
            if (permille > 1200) w->late++;
            if (permille > w->latest) w->latest = permille;
        }
    }
    return NULL;
}

// System V objects outlive their program, so a child removes them when the pipe says that it has ended.
static void keep(void) {
    int ends[2];
    sem = semget(IPC_PRIVATE, 1, 0600);
    queue = msgget(IPC_PRIVATE, 0600);
    must(sem >= 0 && queue >= 0 && !pipe2(ends, O_CLOEXEC), "System V objects");
    keeper = fork();
    must(keeper >= 0, "fork");
    if (!keeper) {
        char c;
        close(ends[1]), close(0), close(1), close(2);
        while (read(ends[0], &c, 1) < 0 && errno == EINTR) {}
        semctl(sem, 0, IPC_RMID);
        msgctl(queue, IPC_RMID, NULL);
        _exit(0);
    }
    close(ends[0]);
}

static void spawn(void *(*run)(void *), void *argument) {
    pthread_attr_t small;
    pthread_t thread;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    errno = pthread_create(&thread, &small, run, argument);
    must(!errno, "pthread_create");
}

static void block_signals(void) {
    sigset_t both;
    sigemptyset(&both);
    sigaddset(&both, SIGUSR1);
    sigaddset(&both, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &both, NULL);
}

static void start(int threads) {
    static const int times[] = {500, 1000, 2000, 5000};
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    block_signals();
    keep();
    char name[64];
    lock_fd = memfd_create("lock", 0);
    snprintf(name, sizeof name, "/proc/self/fd/%d", lock_fd);
    lock_other = open(name, O_RDWR);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    must(lock_other >= 0 && !flock(lock_fd, LOCK_EX) && !fcntl(lock_fd, F_OFD_SETLK, &lock), "lock");
    must(!syscall(SYS_io_setup, 8, &aio), "io_setup");
    waits = calloc(threads, sizeof *waits);
    must(waits != NULL, "calloc");
    for (int i = 0; i < threads; i++) {
        struct wait *w = &waits[i];
        w->kind = &kinds[i % KINDS];
        if (w->kind->class == KEPT || w->kind->class == CURED) w->ms = times[i / KINDS % 4];
        prepare(w);
        spawn(wait_on, w);
    }
    wait_count = threads;
    printf("%d kinds\n", (int)KINDS);
}

static void report(void) {
    static const int times[] = {0, 500, 1000, 2000, 5000};
    const char *comma = "";
    printf("[");
    for (int k = 0; k < KINDS; k++) {
        for (int t = 0; t < 5; t++) {
            long n = 0, eintr = 0, early = 0, timeouts = 0, other = 0, late = 0, latest = 0;
            for (int i = 0; i < wait_count; i++) {
                struct wait *w = &waits[i];
                if (w->kind != &kinds[k] || w->ms != times[t]) continue;
                n++, eintr += w->eintr, early += w->early, timeouts += w->timeouts, other += w->other, late += w->late;
                if (w->latest > latest) latest = w->latest;
            }
            if (!n) continue;
            printf("%s{\"kind\":\"%s\",\"class\":\"%s\",\"ms\":%d,\"threads\":%ld,\"eintr\":%ld,\"early\":%ld,\"timeouts\":%ld,"
                   "\"other\":%ld,\"late\":%ld,\"latest\":%ld}",
                   comma, kinds[k].name, classes[kinds[k].class], times[t], n, eintr, early, timeouts, other, late, latest);
            comma = ",";
        }
    }
    printf("]\n");
}

static void reset(void) {
    for (int i = 0; i < wait_count; i++) {
        struct wait *w = &waits[i];
        w->eintr = w->early = w->timeouts = w->other = w->late = w->latest = 0;
    }
    puts("reset");
}

static void *go_inside(void *ms) {
    work((int)(intptr_t)ms);
    return NULL;
}

// Signals that can only arrive inside the wait: blocked everywhere, let in by epoll_pwait. Each must end it with EINTR.
static atomic_long sent, handled, interrupted, alarms, alarm_interrupted;
static atomic_int storming, calm;

static void on_signal(int number) {
    if (number == SIGALRM) alarms++;
    else handled++;
}

static void *take_signals(void *argument) {
    int number = (int)(intptr_t)argument, epoll = epoll_create1(0);
    sigset_t open;
    struct epoll_event got;
    sigfillset(&open);
    sigdelset(&open, number);
    for (;;) {
        if (epoll_pwait(epoll, &got, 1, -1, &open) < 0 && errno == EINTR) {
            if (number == SIGALRM) alarm_interrupted++;
            else interrupted++;
        }
    }
    return NULL;
}

static void *send_signals(void *thread) {
    struct timespec pause = {0, 100000};
    while (storming) {
        sent++;
        pthread_kill(*(pthread_t *)thread, SIGUSR1);
        // Signals of one number merge while they are pending, so the next one waits for this one's end.
        while (interrupted < sent) nanosleep(&pause, NULL);
    }
    calm = 1;
    return NULL;
}

static void storm(void) {
    static pthread_t taker, alarmed;
    struct sigaction action = {.sa_handler = on_signal};
    block_signals();
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    pthread_create(&taker, NULL, take_signals, (void *)(intptr_t)SIGUSR1);
    pthread_create(&alarmed, NULL, take_signals, (void *)(intptr_t)SIGALRM);
    storming = 1;
    spawn(send_signals, &taker);
    struct itimerval every = {{0, 1000}, {0, 1000}};
    must(!setitimer(ITIMER_REAL, &every, NULL), "setitimer");
    puts("storm");
}

// Sent, handled, and seen as EINTR: first of the signals sent one by one, then of the timer's.
static void end_storm(void) {
    struct itimerval never = {0};
    setitimer(ITIMER_REAL, &never, NULL);
    storming = 0;
    for (int tries = 0; tries < 50 && !calm; tries++) doze(100);
    doze(100);
    printf("%ld %ld %ld %ld %ld\n", (long)sent, (long)handled, (long)interrupted, (long)alarms, (long)alarm_interrupted);
}

int waits_answer(const char *question) {
    int number = 0;
    if (sscanf(question, "start %d", &number) == 1) start(number);
    else if (sscanf(question, "inside %d", &number) == 1) spawn(go_inside, (void *)(intptr_t)number), puts("inside");
    else if (!strcmp(question, "report")) report();
    else if (!strcmp(question, "reset")) reset();
    else if (!strcmp(question, "storm")) storm();
    else if (!strcmp(question, "calm")) end_storm();
    else return 0;
    return 1;
}
