// A named constant without functions goes to a function that is not followed: a patch, and a word about what may be kept (D8).
#include "ask.h"

static const char greeting[] = "hello";

NOINLINE void greet(const char *name) {
    fputs(greeting, stdout);
    printf(" %s\n", name);
}

void answer(const char *question) { greet(question); }
