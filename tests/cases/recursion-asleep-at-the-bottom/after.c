// Fixed.
#include "ask.h"

#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

static int wake[2];
static sem_t inside, outside;

int odd(int n, int sleep);

NOINLINE int even(int n, int sleep) {
    char byte;
    if (n == 0) {
        sem_post(&inside);
        return sleep && read(wake[0], &byte, 1) != 1 ? -100 : 0;
    }
    return odd(n - 1, sleep) + 1;
}

NOINLINE int odd(int n, int sleep) { return n == 0 ? -1000 : even(n - 1, sleep) + 3; }

static void *sleeper(void *unused) {
    if (even(20, 1) != 30) exit(1);
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
        printf("%d\n", even(20, 0));
    }
}
