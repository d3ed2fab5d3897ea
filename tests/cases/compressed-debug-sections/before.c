// Debug information is compressed, and types and statics are told apart by it (D94).
#include "ask.h"

struct item { int kind, weight; };
NOINLINE int one(int n) { static int calls = 10; return n + calls++; }
NOINLINE int two(struct item *i) { static int calls = 20; return i->weight + calls++; }

void answer(const char *question) {
    struct item i = {1, atoi(question)};
    int a = one(5);
    printf("%d %d\n", a, two(&i));
}
