#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include "ask.h"

static int (*step)(int);
static sem_t wanted[2], done;
static int given, result;

// Both threads are there before the library is.
static void *work(void *which) {
    for (;;) {
        sem_wait(which);
        result = step(given);
        sem_post(&done);
    }
    return 0;
}

void answer(const char *question) {
    static int turn;
    if (!step) {
        sem_init(&done, 0, 0);
        for (int i = 0; i < 2; i++) {
            pthread_t thread;
            sem_init(&wanted[i], 0, 0);
            pthread_create(&thread, 0, work, &wanted[i]);
        }
        void *library = dlopen("libcount.so", RTLD_NOW);
        step = (int (*)(int))(library ? dlsym(library, "step") : 0);
        puts(step ? "loaded" : "not loaded");
        return;
    }
    given = atoi(question);
    sem_post(&wanted[turn++ & 1]);
    sem_wait(&done);
    printf("%d\n", result);
}
