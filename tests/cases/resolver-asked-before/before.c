// The fix calls a library function that a resolver chose, through the slot that the program has (D105).
#include "ask.h"

NOINLINE int length(const char *text) { return text[0] ? 1 : 0; }
NOINLINE int other(const char *text) { return (int)strlen(text); }

void answer(const char *question) { printf("%d %d\n", length(question), other(question)); }
