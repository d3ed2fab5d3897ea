// Fixed.
#include "ask.h"
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

static sem_t leave;
static volatile int inside;

__attribute__((noreturn)) NOCLONE void rest(int n) {
    if (n >= 100) {
        inside = 1;
        sem_wait(&leave);
    }
    pthread_exit((void *)(long)n);
}
NOCLONE void work(int n) {
    rest(n + 5);
}
static void *run(void *n) {
    work((long)n);
    return NULL;
}

// "in" sends a thread inside, "out" lets it go, a number asks.
void answer(const char *question) {
    static pthread_t sleeper;
    pthread_t thread;
    void *result = NULL;
    if (!strcmp(question, "in")) {
        sem_init(&leave, 0, 0);
        inside = 0;
        pthread_create(&sleeper, NULL, run, (void *)100);
        while (inside != 1) usleep(1000);
        puts("inside");
        return;
    }
    if (!strcmp(question, "out")) {
        sem_post(&leave);
        pthread_join(sleeper, &result);
        printf("left with %ld\n", (long)result);
        return;
    }
    pthread_create(&thread, NULL, run, (void *)atol(question));
    pthread_join(thread, &result);
    printf("%ld\n", (long)result);
}
