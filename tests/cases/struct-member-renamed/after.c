// Fixed.
#include "ask.h"

struct account {
    int id;
    int money;
};

static struct account *live;

NOINLINE int deposit(int n) {
    if (!live) live = calloc(1, sizeof *live);
    live->money += n + 1;
    return live->money;
}

void answer(const char *question) { printf("%d\n", deposit(atoi(question))); }
