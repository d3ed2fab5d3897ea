// Objects of the old layout are alive on the heap; code for the new one would read past them (D14).
#include "ask.h"

struct account {
    int id;
    int balance;
};

static struct account *live;

NOINLINE int deposit(int n) {
    if (!live) live = calloc(1, sizeof *live);
    live->balance += n;
    return live->balance;
}

void answer(const char *question) { printf("%d\n", deposit(atoi(question))); }
