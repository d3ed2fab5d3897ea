// A function that loops back into its own first bytes cannot have a gate; its entry is the one store that switches all (A).
#include "ask.h"

int total;
NOCLONE void add(int n) { total += n; }
NOCLONE void add_all(int n) {
    do {
        add(n);
    } while (--n);
}
NOCLONE int sum(int n) {
    total = 0;
    add_all(n);
    return total;
}

void answer(const char *question) { printf("%d\n", sum(atoi(question))); }
