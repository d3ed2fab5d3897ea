// A coroutine waits inside the function on a stack that is an array in a frame of a thread: busy, and patched as soon as it has left (A).
#include "ask.h"

#include <pthread.h>
#include <semaphore.h>
#include <ucontext.h>
#include <unistd.h>

static ucontext_t home, aside;
static int wake[2];
static sem_t suspended, left;

NOINLINE int wait_here(int n) {
    if (n) swapcontext(&aside, &home);
    return n * 3;
}

static void coroutine(void) { wait_here(1); }

static void *thread(void *unused) {
    char stack[64 * 1024], byte;
    getcontext(&aside);
    aside.uc_stack.ss_sp = stack;
    aside.uc_stack.ss_size = sizeof stack;
    aside.uc_link = &home;
    makecontext(&aside, coroutine, 0);
    swapcontext(&home, &aside);
    sem_post(&suspended);
    if (read(wake[0], &byte, 1) != 1) exit(1);
    swapcontext(&home, &aside);
    explicit_bzero(stack, sizeof stack);
    explicit_bzero(&aside, sizeof aside);
    sem_post(&left);
    return unused;
}

void answer(const char *question) {
    pthread_t id;
    if (!strcmp(question, "suspend")) {
        if (pipe(wake) || pthread_create(&id, NULL, thread, NULL)) exit(1);
        sem_wait(&suspended);
        puts("suspended");
    } else if (!strcmp(question, "resume")) {
        if (write(wake[1], "x", 1) != 1) exit(1);
        sem_wait(&left);
        puts("left");
    } else {
        printf("%d\n", wait_here(0));
    }
}
