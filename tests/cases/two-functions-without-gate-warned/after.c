// Fixed.
#include "ask.h"

int total;
NOCLONE void add(int n) { total += n; }
NOCLONE void add_all(int n) {
    do {
        add(n * 2);
    } while (--n);
}
NOCLONE void take_all(int n) {
    do {
        add(-2 * n);
    } while (--n);
}
NOCLONE int sum(int n) {
    total = 0;
    add_all(n);
    take_all(n - 1);
    return total;
}

void answer(const char *question) { printf("%d\n", sum(atoi(question))); }
