// SPDX-License-Identifier: GPL-2.0-or-later
// Every register with a value of its own, across a system call and across plain instructions. What a machine must define:
// struct seen with its vectors, raw_held_call and raw_spin, the checks, and how to spoil a register.
#define _GNU_SOURCE
#include "ask.h"
#include "survivor.h"
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>

#if defined(__x86_64__)
#include "held-x86_64.h"
#elif defined(__aarch64__)
#include "held-aarch64.h"
#elif defined(__loongarch64)
#include "held-loongarch64.h"
#else
#error "which registers this machine has is not written down"
#endif

static void spoiling(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    spoil(context);
}

__attribute__((constructor)) static void prepare(void) {
    struct sigaction action = { .sa_sigaction = spoiling, .sa_flags = SA_SIGINFO | SA_RESTART };
    prepare_machine();
    for (int i = 0; i < VECTORS; i++)
        for (int j = 0; j < VECTOR; j++) pattern[i][j] = 16 * i + j + 1;
    sigaction(SPOILS, &action, NULL);
}

static int vectors_intact(const struct seen *seen) {
    int bytes = vector_bytes();
    for (int i = 0; i < VECTORS; i++)
        if (memcmp(seen->vectors[i], pattern[i], bytes)) return 0;
    return 1;
}

long held_call(const long call[7], int *intact) {
    struct seen seen;
    unsigned long before = control();
    raw_held_call(call, &seen);
    *intact = registers_intact(call, &seen) && vectors_intact(&seen) && control() == before;
    return seen.registers[0];
}

int spin_check(long rounds) {
    struct seen seen;
    unsigned long before = control();
    int good = raw_spin(rounds, &seen);
    return good && vectors_intact(&seen) && control() == before;
}
