// Fixed.
#include "ask.h"

struct request { int kind, size, limit; };

static NOINLINE int cost(struct request *r, int factor) {
    return r->size * factor + r->limit;
}

NOINLINE int first(struct request *r) { return cost(r, 3) + 1; }
NOINLINE int second(struct request *r) { return cost(r, 5) + 2; }

void answer(const char *question) {
    struct request r = {atoi(question), 7, 9};
    printf("%d %d\n", first(&r), second(&r));
}
