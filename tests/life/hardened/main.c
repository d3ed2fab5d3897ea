// SPDX-License-Identifier: GPL-2.0-or-later
// Answers "value" with the patched function's value; every other word makes the process odd in some way, and the answer
// is "ok", or "cannot" with an errno.
#include "odd.h"

void thread(void *(*body)(void *)) {
    pthread_attr_t small;
    pthread_t id;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    if (pthread_create(&id, &small, body, NULL)) exit(1);
}

void answer(const char *question) {
    char first[64] = "", second[64] = "";
    int error;
    sscanf(question, "%63s %63s", first, second);
    if (!strcmp(first, "value")) {
        printf("%d\n", value());
        return;
    }
    if (!strcmp(first, "filter")) error = filter(second, 1);
    else if (!strcmp(first, "filter-here")) error = filter(second, 0);
    else error = odd(question);
    if (error < 0) return;
    if (error) printf("cannot: %s\n", strerror(error));
    else puts("ok");
}
