// A thread sleeps inside the function: busy, with its name, and patched as soon as it leaves (A).
#include "ask.h"

#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

static int wake[2];
static sem_t inside, outside;

NOINLINE int wait_here(int n) {
    char byte;
    sem_post(&inside);
    if (n && read(wake[0], &byte, 1) != 1) return -1;
    return n * 3;
}

static void *sleeper(void *unused) {
    wait_here(1);
    sem_post(&outside);
    return unused;
}

void answer(const char *question) {
    pthread_t thread;
    if (!strcmp(question, "sleep")) {
        if (pipe(wake) || pthread_create(&thread, NULL, sleeper, NULL)) exit(1);
        sem_wait(&inside);
        puts("asleep");
    } else if (!strcmp(question, "wake")) {
        if (write(wake[1], "x", 1) != 1) exit(1);
        sem_wait(&outside);
        puts("awake");
    } else {
        printf("%d\n", wait_here(0));
    }
}
