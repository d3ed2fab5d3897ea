// gcc passes other parameters to the fixed function (-fipa-sra): its callers must change along with it (D26).
#include "ask.h"

struct request { int kind, size, limit; };

static NOINLINE int cost(struct request *r, int factor) {
    return r->kind + r->size * 0 + factor;
}

NOINLINE int first(struct request *r) { return cost(r, 3) + 1; }
NOINLINE int second(struct request *r) { return cost(r, 5) + 2; }

void answer(const char *question) {
    struct request r = {atoi(question), 7, 9};
    printf("%d %d\n", first(&r), second(&r));
}
