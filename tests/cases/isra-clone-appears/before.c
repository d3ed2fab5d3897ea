// After the fix a parameter is passed by value: the function gets the suffix .isra and its callers pass something else (D25).
#include "ask.h"

struct pair { int a, b; };

static NOINLINE int sum(struct pair *p) {
    p->b = p->a;
    return p->a + p->b;
}

NOINLINE int both(struct pair *p) { return sum(p); }

void answer(const char *question) {
    struct pair p = {atoi(question), 1};
    printf("%d\n", both(&p));
}
