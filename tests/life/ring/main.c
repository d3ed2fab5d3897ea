// SPDX-License-Identifier: GPL-2.0-or-later
// Threads go round a ring of functions that lie in the program, in a library it was linked with, and in one it loaded itself.
#include "ring.h"
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

int a0(int), a1(int), a2(int), a3(int), a4(int), a5(int), l0(int), l1(int), l2(int), l3(int), l4(int);
_Atomic long mixtures, rounds;
link_fn *plugin_first;

static link_fn *ring[16] = {a0, a1, a2, a3, a4, a5, l0, l1, l2, l3, l4};

static void go_round(void) {
    for (int i = 0; i < 16; i++) ring[i](1);
    rounds++;
}

static void *runner(void *pause_us) {
    for (;;) {
        go_round();
        usleep((long)pause_us);
    }
    return NULL;
}

static void start(void) {
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 32);
    if (length < 0) exit(1);
    path[length] = 0;
    strcpy(strrchr(path, '/') + 1, "libplugin.so");
    void *plugin = dlopen(path, RTLD_NOW);
    if (!plugin) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    const char *names[] = {"p0", "p1", "p2", "p3", "p4"};
    for (int i = 0; i < 5; i++) ring[11 + i] = (link_fn *)dlsym(plugin, names[i]);
    plugin_first = ring[11];
    for (long i = 0; i < 3; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, runner, (void *)(i * 50));
    }
}

// "start", or any other word for: mixtures so far, the versions round the ring (the number of different ones, and one of
// them), and whether the threads went on since.
void answer(const char *question) {
    if (!strcmp(question, "start")) start();
    int low = 1 << 30, high = 0;
    long before = rounds;
    for (int i = 0; i < 16; i++) {
        int version = ring[i](0);
        if (version < low) low = version;
        if (version > high) high = version;
    }
    while (rounds == before) usleep(100);
    printf("mixtures %ld version %d%s\n", mixtures, high, low == high ? "" : " torn");
}
