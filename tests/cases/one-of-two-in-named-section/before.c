// Two functions share a section that the source names: no section flag can part them, and only one changes (D60).
#include "ask.h"

#define HOT __attribute__((section(".text.kitchen"), noinline, noclone))
HOT int boil(int n) { return n * 3; }
HOT int fry(int n) { return n * 5; }

void answer(const char *question) { printf("%d %d\n", boil(atoi(question)), fry(atoi(question))); }
