#include "ask.h"
#include "kept.h"
#include "used.h"

// Uses nothing but the result register, so that a caller may keep values in all the others.
NOCLONE int used(void) { return USED; }

NOCLONE int other(const char *question) { return OTHER + atoi(question); }

void answer(const char *question) { printf("%d\n", kept() + other(question)); }
