// Fixed.
#include "ask.h"

NOINLINE int length(const char *text) { return (int)strlen(text) * 2; }
NOINLINE int other(const char *text) { return (int)strlen(text); }

void answer(const char *question) { printf("%d %d\n", length(question), other(question)); }
