// The fix reads environ, and the program holds a copy of the same data as __environ (D57).
#include "ask.h"

extern char **__environ;
extern char **environ;

NOINLINE void clear(void) { __environ = NULL; }

NOINLINE int check(int n) { return n; }

void answer(const char *question) {
    if (*question == 'c') {
        clear();
    }
    printf("%d\n", check(atoi(question)));
}
