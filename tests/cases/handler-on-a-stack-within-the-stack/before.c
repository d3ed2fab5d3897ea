// A signal handler's stack is an array in a frame above the function that it interrupted: busy, and patched as soon as it leaves (A).
#include "ask.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <unistd.h>

static int wake[2];
static sem_t inside, outside;

NOINLINE int interrupted(int n) {
    if (n) raise(SIGUSR1);
    return n * 3;
}

static void wait_here(int signal) {
    char byte;
    sem_post(&inside);
    if (read(wake[0], &byte, 1) != 1) exit(signal);
}

static void *thread(void *unused) {
    char stack[64 * 1024];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack}, none = {.ss_flags = SS_DISABLE};
    struct sigaction action = {.sa_handler = wait_here, .sa_flags = SA_ONSTACK};
    sigaltstack(&alternate, NULL);
    sigaction(SIGUSR1, &action, NULL);
    interrupted(1);
    sigaltstack(&none, NULL);
    sem_post(&outside);
    return unused;
}

void answer(const char *question) {
    pthread_t id;
    if (!strcmp(question, "interrupt")) {
        if (pipe(wake) || pthread_create(&id, NULL, thread, NULL)) exit(1);
        sem_wait(&inside);
        puts("interrupted");
    } else if (!strcmp(question, "wake")) {
        if (write(wake[1], "x", 1) != 1) exit(1);
        sem_wait(&outside);
        puts("awake");
    } else {
        printf("%d\n", interrupted(0));
    }
}
