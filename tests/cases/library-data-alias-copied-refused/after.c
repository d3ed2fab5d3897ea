// Fixed.
#include "ask.h"

extern char **__environ;
extern char **environ;

NOINLINE void clear(void) { __environ = NULL; }

NOINLINE int check(int n) { return n + (environ ? 1 : 2); }

void answer(const char *question) {
    if (*question == 'c') {
        clear();
    }
    printf("%d\n", check(atoi(question)));
}
