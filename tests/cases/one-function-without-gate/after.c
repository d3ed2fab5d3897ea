// Fixed.
#include "ask.h"

int total;
NOCLONE void add(int n) { total += n; }
NOCLONE void add_all(int n) {
    do {
        add(n * 2);
    } while (--n);
}
NOCLONE int sum(int n) {
    total = 0;
    add_all(n);
    return total + 100;
}

void answer(const char *question) { printf("%d\n", sum(atoi(question))); }
