// A program that forks a child on request and asks it through pipes: children carry the patch of their parent (A).
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"
#include <unistd.h>

static int to_child[2], from_child[2];

NOINLINE int price(int n) { return n * 3; }

static void child(void) {
    char line[64] = "";
    close(to_child[1]);
    // The parent's end closes the pipe, so that no child outlives it.
    while (read(to_child[0], line, sizeof line - 1) > 0) {
        char text[32];
        int length = snprintf(text, sizeof text, "%d", price(atoi(line)));
        if (write(from_child[1], text, length) < 0) break;
    }
    _exit(0);
}

void answer(const char *question) {
    char text[64] = "";
    if (!strcmp(question, "fork")) {
        if (pipe(to_child) || pipe(from_child)) exit(1);
        int pid = fork();
        if (pid == 0) child();
        printf("%d\n", pid);
    } else if (!strncmp(question, "child ", 6)) {
        if (write(to_child[1], question + 6, strlen(question + 6)) < 0) exit(1);
        if (read(from_child[0], text, sizeof text - 1) < 0) exit(1);
        puts(text);
    } else {
        printf("%d\n", price(atoi(question)));
    }
}
