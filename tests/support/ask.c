// SPDX-License-Identifier: GPL-2.0-or-later
// The loop of every program under test. It lives apart from the code that is patched, so that no answer() is inlined here.
#include "ask.h"
#include <pthread.h>
#include <unistd.h>

static void *park(void *unused) {
    for (;;) pause();
    return unused;
}

int main(int argc, char **argv) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    for (int left = argc > 1 ? atoi(argv[1]) : 0; left > 0; left--) {
        pthread_t thread;
        if (pthread_create(&thread, &small, park, NULL)) return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    puts("ready");
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        answer(line);
    }
    return 0;
}
