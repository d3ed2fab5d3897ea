// The fix calls a library function that the program never imported: there is no slot for it yet (D56).
#include "ask.h"

#include <unistd.h>

NOINLINE int check(int n) { return n; }

void answer(const char *question) { printf("%d\n", check(atoi(question))); }
