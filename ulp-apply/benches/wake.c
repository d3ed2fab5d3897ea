// SPDX-License-Identifier: GPL-2.0-or-later
/* How long a sleeping thread takes to answer while a patch is applied.
   wake target PARKED           parks threads, and answers each byte on stdin with one on stdout, through target_fn()
   wake client PARKED COMMAND…  starts a target, pings it all the time, and runs the command again and again meanwhile,
                                with PID in it replaced; prints one line of JSON, times in microseconds */
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef TARGET_VALUE
#define TARGET_VALUE 1
#endif
#define MOST 4000000

extern char **environ;
static int never[2];

__attribute__((noinline, noclone)) int target_fn(int x) {
    volatile int sum = x;
    for (int i = 0; i < 10; i++) sum = sum + i;
    return sum ? TARGET_VALUE : 0;
}

static void *park(void *unused) {
    char byte;
    while (read(never[0], &byte, 1) == 1) {}
    return unused;
}

static int target(int parked) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    if (pipe(never)) return 1;
    for (int i = 0; i < parked; i++) {
        pthread_t thread;
        if (pthread_create(&thread, &small, park, NULL)) return 1;
    }
    char byte;
    while (read(0, &byte, 1) == 1) {
        byte = (char)target_fn(byte);
        if (write(1, &byte, 1) != 1) return 1;
    }
    return 0;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static float times[MOST];
static int to_target[2], from_target[2];

/* Pings until the child has ended, or for so many microseconds; prints what was seen. */
static void ping(const char *name, pid_t *children, int count, double limit) {
    int n = 0, done = 0;
    double begin = now();
    while (n < MOST && (count ? done < count : now() - begin < limit)) {
        char byte = 1;
        double start = now();
        if (write(to_target[1], &byte, 1) != 1 || read(from_target[0], &byte, 1) != 1) exit(1);
        times[n++] = (float)(now() - start);
        if (count && waitpid(children[0], NULL, WNOHANG) > 0) done++;
    }
    qsort(times, (size_t)n, sizeof *times, by_size);
    printf("\"%s\": {\"pings\": %d, \"p50\": %.1f, \"p999\": %.1f, \"max\": %.1f}", name, n, times[n / 2],
           times[(int)((double)n * 0.999)], times[n - 1]);
}

int main(int argc, char **argv) {
    if (argc >= 3 && !strcmp(argv[1], "target")) return target(atoi(argv[2]));
    if (argc < 4 || pipe(to_target) || pipe(from_target)) return 2;
    pid_t pid = fork();
    if (pid == 0) {
        dup2(to_target[0], 0);
        dup2(from_target[1], 1);
        close(to_target[0]), close(to_target[1]), close(from_target[0]), close(from_target[1]);
        execl("./wake", "wake", "target", argv[2], (char *)NULL);
        _exit(127);
    }
    char byte = 1, number[16];
    if (write(to_target[1], &byte, 1) != 1 || read(from_target[0], &byte, 1) != 1) return 1;
    usleep(300000);
    snprintf(number, sizeof number, "%d", pid);
    /* argv[3] is run through sh, with PID in the environment. */
    setenv("PID", number, 1);
    printf("{\"parked\": %s, ", argv[2]);
    ping("alone", NULL, 0, 1e6);
    printf(", ");
    char *words[] = {"sh", "-c", argv[3], NULL};
    pid_t child;
    if (posix_spawn(&child, "/bin/sh", NULL, NULL, words, environ)) return 1;
    ping("patched", &child, 1, 0);
    printf("}\n");
    kill(pid, SIGTERM);
    return waitpid(pid, NULL, 0) != pid;
}
