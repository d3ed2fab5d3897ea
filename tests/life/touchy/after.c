// Fixed.
// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include "ask.h"
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

NOINLINE int used(int n) { return n + 100; }

static volatile sig_atomic_t caught;
static volatile int leave;
static int sibling;

static void count(int signal) { caught += signal == SIGUSR1; }

static int share(void *unused) {
    // It ends with us, whatever ends us.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (!leave) usleep(1000);
    (void)unused;
    return 0;
}

// System calls made behind the program, by the libraries, are let through; one made in the program becomes a signal.
static void dispatch(int on) {
    static char block = 1; // SYSCALL_DISPATCH_FILTER_BLOCK
    extern char __executable_start;
    unsigned long behind = (unsigned long)&__executable_start + (1 << 20);
    int failed = on ? prctl(59, 1, behind, -behind - 1, &block) : prctl(59, 0, 0, 0, 0);
    if (failed) perror("PR_SET_SYSCALL_USER_DISPATCH");
}

void answer(const char *question) {
    static char stack[64 * 1024];
    if (!strcmp(question, "handle")) signal(SIGUSR1, count);
    if (!strcmp(question, "caught")) {
        printf("%d\n", caught);
        return;
    }
    if (!strcmp(question, "sibling")) sibling = clone(share, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL);
    if (!strcmp(question, "alone")) {
        leave = 1;
        waitpid(sibling, NULL, 0);
    }
    if (!strcmp(question, "dispatch")) dispatch(1);
    if (!strcmp(question, "plain")) dispatch(0);
    printf("%d\n", used(1));
}
