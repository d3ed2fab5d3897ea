// Fixed.
#include "ask.h"

NOINLINE int length(const char *text) { return (int)strspn(text, "abc") + (int)strcspn(text, "x"); }

void answer(const char *question) { printf("%d\n", length(question)); }
