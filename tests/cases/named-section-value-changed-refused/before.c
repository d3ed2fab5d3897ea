// A value in a section of its own name is as alive as any other (D15).
#include "ask.h"

__attribute__((section("settings"), used)) int limit = 10;

NOINLINE int clamp(int n) { return n > limit ? limit : n; }

void answer(const char *question) { printf("%d\n", clamp(atoi(question))); }
