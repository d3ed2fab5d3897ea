// A constant table of operations was registered by a function that has run: the live pointer still leads to the old one (D104).
#include "ask.h"

struct operations {
    int (*get)(int);
    int factor;
};

static NOCLONE int next(int n) { return n + 1; }
static NOCLONE int second(int n) { return n + 2; }
static const struct operations operations = {next, 10};
static const struct operations *volatile registered;

NOINLINE void enter(void) { registered = &operations; }

NOINLINE int operate(int n) { return registered->get(n) * registered->factor; }

void answer(const char *question) {
    if (!registered) enter();
    printf("%d %d\n", operate(atoi(question)), second(0));
}
