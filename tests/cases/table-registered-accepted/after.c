// Fixed.
#include "ask.h"

struct operations {
    int (*get)(int);
    int factor;
};

static NOCLONE int next(int n) { return n + 1; }
static NOCLONE int second(int n) { return n + 2; }
static const struct operations operations = {second, 20};
static const struct operations *volatile registered;

NOINLINE void enter(void) { registered = &operations; }

NOINLINE int operate(int n) { return registered->get(n) * registered->factor; }

void answer(const char *question) {
    if (!registered || *question == '-') enter();
    printf("%d %d\n", operate(atoi(question)), second(atoi("0")));
}
