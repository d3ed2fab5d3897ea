// Fixed.
#include "ask.h"

__attribute__((section("settings"), used)) int limit = 10;

NOINLINE int clamp(int n) { return n > limit ? limit + 1000 : n; }

void answer(const char *question) { printf("%d\n", clamp(atoi(question))); }
