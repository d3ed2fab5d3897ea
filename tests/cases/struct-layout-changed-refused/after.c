// Fixed.
#include "ask.h"

struct account {
    int id;
    long limit;
    int balance;
};

static struct account *live;

NOINLINE int deposit(int n) {
    if (!live) live = calloc(1, sizeof *live);
    live->balance += n + 1;
    return live->balance;
}

void answer(const char *question) { printf("%d\n", deposit(atoi(question))); }
