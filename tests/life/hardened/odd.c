// SPDX-License-Identifier: GPL-2.0-or-later
// What services do, and what nobody should: each word of odd() is one of them.
#include "odd.h"
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

static _Atomic long count;
static _Atomic int go_on;
static int child_pid, to_child[2];

static void *asleep(void *unused) {
    for (;;) pause();
    return unused;
}

static void questions(void) {
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        answer(line);
    }
    exit(0);
}

static void *serve(void *unused) {
    // The first thread is a zombie a moment after its end has been told.
    char stat[512];
    do {
        int fd = open("/proc/self/stat", O_RDONLY);
        ssize_t length = read(fd, stat, sizeof stat - 1);
        close(fd);
        stat[length > 0 ? length : 0] = 0;
    } while (!strstr(stat, ") Z "));
    puts("ok");
    questions();
    return unused;
}

// A process of its own in our memory: ends with us, or when it is told.
static void *vforks(void *unused) {
    int pid = vfork();
    if (pid == 0) {
        char byte;
        close(to_child[1]);
        go_on = 1;
        syscall(SYS_read, to_child[0], &byte, 1);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    go_on = 2;
    return asleep(unused);
}

static int sibling(void *unused) {
    (void)unused;
    syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    for (;;) syscall(SYS_pause);
}

static int clone_sibling(void) {
    static char stack[16384] __attribute__((aligned(16)));
    child_pid = clone(sibling, stack + sizeof stack, CLONE_VM | CLONE_FS | SIGCHLD, NULL);
    return child_pid < 0 ? errno : 0;
}

// One kernel thread that polls the ring, and one that waits in a read for us.
static int uring(void) {
    struct io_uring_params set = {.flags = IORING_SETUP_SQPOLL, .sq_thread_idle = 1000};
    int pipes[2], ring = syscall(SYS_io_uring_setup, 4, &set);
    static char buffer[8];
    if (ring < 0 || pipe(pipes)) return errno;
    size_t size = set.sq_off.array + set.sq_entries * sizeof(unsigned);
    char *rings = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *entry = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
    if (rings == MAP_FAILED || entry == MAP_FAILED) return errno;
    *entry = (struct io_uring_sqe){.opcode = IORING_OP_READ, .flags = IOSQE_ASYNC, .fd = pipes[0],
                                   .addr = (unsigned long)buffer, .len = sizeof buffer, .off = -1};
    ((unsigned *)(rings + set.sq_off.array))[0] = 0;
    __atomic_store_n((unsigned *)(rings + set.sq_off.tail), 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 0, IORING_ENTER_SQ_WAKEUP, NULL, 0) < 0) return errno;
    return 0;
}

// Spends nearly all its time inside one restartable sequence, and begins it anew whenever the kernel aborts it.
static void sequence(long turns) {
#ifdef __x86_64__
    struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    __asm__ volatile(
        ".pushsection __rseq_cs, \"aw\"\n\t.balign 32\n"
        "3:\n\t.long 0, 0\n\t.quad 1f, 2f - 1f, 4f\n\t.popsection\n"
        "5:\n\t"
        "leaq 3b(%%rip), %%rax\n\t"
        "movq %%rax, %[descriptor]\n"
        "1:\n\t"
        "decq %[turns]\n\t"
        "jnz 1b\n"
        "2:\n\t"
        "jmp 6f\n\t"
        ".byte 0x0f, 0xb9, 0x3d\n\t.long 0x53053053\n"
        "4:\n\t"
        "lock incq %[count]\n\t"
        "jmp 5b\n"
        "6:\n"
        : [descriptor] "=m"(area->rseq_cs), [turns] "+r"(turns), [count] "+m"(count)
        :
        : "rax", "memory", "cc");
#else
    (void)turns;
#endif
}

static int rseq_server(void) {
    if (!__rseq_size) return ENOSYS;
    puts("ok");
    for (;;) {
        struct pollfd in = {0, POLLIN, 0};
        sequence(3000000);
        if (poll(&in, 1, 0) != 1) continue;
        char line[256];
        if (!fgets(line, sizeof line, stdin)) exit(0);
        line[strcspn(line, "\n")] = 0;
        if (!strcmp(line, "aborts")) printf("%ld\n", count);
        else answer(line);
    }
}

// A probe of the kernel on the first byte of value(), which goes when we go.
static int uprobe(int on) {
    static int fd = -1;
    if (!on) return close(fd) ? errno : 0;
    char path[4096], line[4352];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length < 0) return errno;
    path[length] = 0;
    unsigned long start = 0, end = 0, offset = 0, type = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "%lx-%lx %*s %lx", &start, &end, &offset) == 3 && start <= (unsigned long)value && (unsigned long)value < end) break;
    }
    if (file) fclose(file);
    file = fopen("/sys/bus/event_source/devices/uprobe/type", "r");
    if (!file || fscanf(file, "%lu", &type) != 1) return ENOSYS;
    fclose(file);
    struct perf_event_attr attr = {.type = type, .size = sizeof attr, .config1 = (unsigned long)path,
                                   .config2 = (unsigned long)value - start + offset};
    fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    return fd < 0 ? errno : 0;
}

static void on_alarm(int signal) {
    // Work of some microseconds, on the stack of whoever was interrupted.
    volatile char room[512];
    for (size_t i = 0; i < sizeof room; i++) room[i] = (char)(signal + i);
    count++;
}

static int alarms(long period_us) {
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct itimerval timer = {{0, period_us}, {0, period_us}};
    sigaction(SIGALRM, &action, NULL);
    return setitimer(ITIMER_REAL, &timer, NULL) ? errno : 0;
}

static void after(long us) {
    struct timespec time = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&time, NULL);
}

// Waits that the kernel resumes by restart_syscall after a stop.
static void *naps(void *unused) {
    for (;;) {
        after(30 * 1000000);
        count++;
    }
    return unused;
}
static void *polls(void *unused) {
    for (;;) {
        poll(NULL, 0, 30000);
        count++;
    }
    return unused;
}
static void *waits(void *unused) {
    static int word;
    struct timespec time = {30, 0};
    for (;;) {
        syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &time, NULL, 0);
        count++;
    }
    return unused;
}

static void *short_life(void *unused) { return unused; }
static void *storm(void *unused) {
    pthread_attr_t small;
    pthread_t id;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    while (go_on) {
        if (pthread_create(&id, &small, short_life, NULL)) continue;
        pthread_join(id, NULL);
        count++;
    }
    return asleep(unused);
}

int odd(const char *question) {
    char word[64] = "";
    long number = 0;
    sscanf(question, "%63s %ld", word, &number);
    if (!strcmp(word, "count")) {
        printf("%ld\n", count);
        return -1;
    }
    if (!strcmp(word, "undumpable")) return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) ? errno : 0;
    if (!strcmp(word, "own-mounts")) return unshare(CLONE_NEWNS) ? errno : 0;
    if (!strcmp(word, "own-users")) return unshare(CLONE_NEWUSER) ? errno : 0;
    if (!strcmp(word, "own-rest")) return unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) ? errno : 0;
    if (!strcmp(word, "chroot")) return chroot("/proc/self/fdinfo") || chdir("/") ? errno : 0;
    if (!strcmp(word, "parked")) {
        for (; number > 0; number--) thread(asleep);
        return 0;
    }
    if (!strcmp(word, "sleepers")) {
        thread(naps), thread(polls), thread(waits);
        return 0;
    }
    if (!strcmp(word, "leader-ends")) {
        thread(serve);
        pthread_exit(NULL);
    }
    if (!strcmp(word, "vfork")) {
        if (pipe(to_child)) return errno;
        thread(vforks);
        while (!go_on) after(1000);
        return 0;
    }
    if (!strcmp(word, "vfork-ends")) {
        if (write(to_child[1], "x", 1) != 1) return errno;
        while (go_on != 2) after(1000);
        return 0;
    }
    if (!strcmp(word, "sibling")) return clone_sibling();
    if (!strcmp(word, "sibling-ends")) {
        kill(child_pid, SIGKILL);
        return waitpid(child_pid, NULL, 0) == child_pid ? 0 : errno;
    }
    if (!strcmp(word, "zombie")) {
        int pid = fork();
        if (pid == 0) _exit(0);
        siginfo_t info;
        waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
        printf("%d\n", pid);
        return -1;
    }
    if (!strcmp(word, "uring")) return uring();
    if (!strcmp(word, "rseq")) return rseq_server();
    if (!strcmp(word, "uprobe")) return uprobe(1);
    if (!strcmp(word, "uprobe-ends")) return uprobe(0);
    if (!strcmp(word, "alarms")) return alarms(number);
    if (!strcmp(word, "exec")) {
        after(number);
        execl("/proc/self/exe", "app", (char *)NULL);
        return errno;
    }
    if (!strcmp(word, "exit")) {
        puts("ok");
        after(number);
        exit(42);
    }
    if (!strcmp(word, "storm")) {
        go_on = 1;
        for (; number > 0; number--) thread(storm);
        return 0;
    }
    if (!strcmp(word, "storm-ends")) {
        go_on = 0;
        return 0;
    }
    return EINVAL;
}
