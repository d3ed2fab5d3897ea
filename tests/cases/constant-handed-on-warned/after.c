// Fixed.
#include "ask.h"

static const char greeting[] = "howdy";

NOINLINE void greet(const char *name) {
    fputs(greeting, stdout);
    printf(" %s\n", name);
}

void answer(const char *question) { greet(question); }
