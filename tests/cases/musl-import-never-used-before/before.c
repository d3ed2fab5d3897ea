// musl keeps its libraries in a list of its own; a new import is looked up there (A).
#include "ask.h"
#include <unistd.h>

NOINLINE long check(const char *text) { return text[0]; }

void answer(const char *question) { printf("%ld\n", check(question)); }
