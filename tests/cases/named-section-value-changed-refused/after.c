// Fixed.
#include "ask.h"

__attribute__((section("settings"), used)) int limit = 20;

NOINLINE int clamp(int n) { return n > limit ? limit : n; }

void answer(const char *question) { printf("%d\n", clamp(atoi(question))); }
