// SPDX-License-Identifier: GPL-2.0-or-later
// Answers questions in a thread of its own, because the first thread waits for something else. Arguments: the kind of wait
// of the first thread.
#define _GNU_SOURCE
#include "ask.h"
#include "survivor.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int (*const functions[])(int) = { v1, v2, v3, v4, v5 };
enum { FUNCTIONS = 5 };
static atomic_int group = 1, storm;
static char **arguments;

static int version(int i) { return functions[i](7) / 100; }

// All functions of the group, there and back: a switch of all at once is seen between two calls at most, so that either
// the way there or the way back is of one version, or both are and differ.
static int mixed(void) {
    int seen[2 * FUNCTIONS], count = group, changes = 0;
    for (int i = 0; i < count; i++) seen[i] = version(i);
    for (int i = 0; i < count; i++) seen[count + i] = version(count - 1 - i);
    for (int i = 1; i < 2 * count; i++) changes += seen[i] != seen[i - 1];
    return changes > 1;
}

// Runs for two milliseconds and sleeps for one, so that it is met in both.
static void *spin(void *unused) {
    for (int in_a_row = 0;;) {
        for (int i = 0; i < 20000; i++) {
            errno = 4711;
            // Three times in a row no series of switches can be.
            in_a_row = mixed() ? in_a_row + 1 : 0;
            if (in_a_row == 3) mixtures++;
            if (errno != 4711) wrong_errno++;
            spins++;
        }
        usleep(1000);
    }
    return unused;
}

static void *hold_registers(void *unused) {
    for (;;) {
        if (!spin_check(20000)) registers++;
        spins++;
        usleep(1000);
    }
    return unused;
}

static void *short_life(void *unused) { return unused; }

// Threads that are born and end all the time.
static void *storming(void *unused) {
    pthread_t thread;
    while (storm)
        if (!pthread_create(&thread, NULL, short_life, NULL)) pthread_join(thread, NULL);
    return unused;
}

static int at_once(void *unused) {
    (void)unused;
    _exit(0);
}

// A number since the last time it was asked for.
static long since(atomic_long *number) { return atomic_exchange(number, 0); }

static void answer_one(const char *line) {
    static char stack[64 * 1024];
    pthread_t thread;
    int status;
    if (!strcmp(line, "stat")) {
        int stuck = turn_waiters();
        printf("{\"eintr\":%ld,\"other\":%ld,\"registers\":%ld,\"errno\":%ld,\"mixtures\":%ld,\"stuck\":%d,\"turns\":%ld,"
            "\"spins\":%ld}\n", since(&eintr), since(&other), since(&registers), since(&wrong_errno), since(&mixtures), stuck,
            since(&turns), since(&spins));
    } else if (!strcmp(line, "versions")) {
        for (int i = 0; i < FUNCTIONS; i++) printf("%d%c", version(i), i < FUNCTIONS - 1 ? ' ' : '\n');
    } else if (!strncmp(line, "group ", 6)) {
        group = atoi(line + 6);
        puts("ok");
    } else if (!strcmp(line, "exit")) {
        _exit(0);
    } else if (!strcmp(line, "exec")) {
        execv("/proc/self/exe", arguments);
        puts("failed");
    } else if (!strcmp(line, "fork") || !strcmp(line, "vfork")) {
        // A raw vfork returns twice on one stack, which C does not allow; clone gives the child its own.
        int flags = *line == 'v' ? CLONE_VM | CLONE_VFORK | SIGCHLD : SIGCHLD;
        int child = clone(at_once, stack + sizeof stack, flags, NULL);
        puts(child > 0 && waitpid(child, &status, 0) == child && status == 0 ? "ok" : "failed");
    } else if (!strcmp(line, "spoil")) {
        // The first thread's number is the process's.
        puts(tgkill(getpid(), getpid(), SPOILS) ? "failed" : "ok");
    } else if (!strcmp(line, "storm")) {
        storm = 1;
        for (int i = 0; i < 3; i++) pthread_create(&thread, NULL, storming, NULL);
        puts("ok");
    } else if (!strcmp(line, "calm")) {
        storm = 0;
        puts("ok");
    } else {
        puts("what?");
    }
}

static void *answering(void *unused) {
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        answer_one(line);
    }
    exit(0);
    return unused;
}

int main(int argc, char **argv) {
    pthread_t thread;
    arguments = argv;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    int own = start_waiters(argc > 1 ? atoi(argv[1]) : 0);
    if (pthread_create(&thread, NULL, spin, NULL) || pthread_create(&thread, NULL, hold_registers, NULL)) return 1;
    puts("ready");
    if (pthread_create(&thread, NULL, answering, NULL)) return 1;
    wait_for_ever(own);
}
