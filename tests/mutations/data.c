// SPDX-License-Identifier: GPL-2.0-or-later
// Tables, strings, floating point, structures, state. Each line of input is the name of a function and a number.
#include "ask.h"
#include <math.h>

struct item {
    const char *name;
    short weight;
    unsigned char flags;
    long price;
};

static const struct item items[] = {
    {"bolt", 3, 1, 120}, {"nut", 2, 0, 80}, {"washer", 1, 4, 15}, {"screw", 5, 2, 333},
};

static const int primes[] = {2, 3, 5, 7, 11, 13, 17, 19};

static int plus(int n) { return n + 100; }
static int minus(int n) { return n - 100; }
static int same(int n) { return n; }
static int (*const steps[])(int) = {plus, minus, same, plus};

static int total = 40;
static int unset;
static __thread int mine = 7;

static NOINLINE int prime(int n) { return primes[(unsigned)n % 8] * 10 + n % 3; }

static NOINLINE int step(int n) { return steps[n & 3](n) + 1; }

static NOINLINE long cost(const struct item *i, int n) {
    if (i->flags & 4) return i->price;
    return i->price * n + i->weight;
}

static NOINLINE const char *label(const struct item *i, char *out) {
    snprintf(out, 64, "%s:%d/%ld", i->name, i->weight, i->price);
    return out;
}

static NOINLINE double ratio(double x) { return x * 0.75 + 1.5; }

static NOINLINE float curve(const float *v) {
    float sum = 0.0f;
    for (int i = 0; i < 8; i++) sum += v[i] * 0.5f + 0.25f;
    return sum;
}

static NOINLINE int count(int n) {
    static int calls = 2;
    calls++;
    return calls * 100 + n;
}

static NOINLINE int add(int n) {
    total += n;
    unset ^= n;
    return total * 3 + unset;
}

static NOINLINE int thread(int n) {
    mine = mine * 2 + n;
    return mine;
}

static NOINLINE int compare(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    return x < y ? -1 : x > y;
}

static NOINLINE int sorted(int n) {
    int v[6] = {n, 5, -3, n * 2, 17, 0};
    qsort(v, 6, sizeof v[0], compare);
    int sum = 0;
    for (int i = 0; i < 6; i++) sum = sum * 3 + v[i];
    return sum;
}

static NOINLINE int text(const char *s) {
    int hash = 17;
    for (; *s; s++) hash = hash * 31 + *s;
    return hash % 1000;
}

static NOINLINE int machine(int n) {
    static const void *const labels[] = {&&one, &&two, &&three, &&out};
    int value = n, left = 3;
    goto *labels[n & 3];
one:
    value += 5;
    if (--left > 0) goto *labels[value & 3];
    goto out;
two:
    value *= 3;
    if (--left > 0) goto *labels[value & 3];
    goto out;
three:
    value -= 11;
out:
    return value;
}

void answer(const char *question) {
    char name[32], buffer[64];
    int n = 0;
    if (sscanf(question, "%31s %d", name, &n) != 2) n = 0;
    const struct item *i = &items[n & 3];
    if (!strcmp(name, "prime")) printf("%d\n", prime(n));
    else if (!strcmp(name, "step")) printf("%d\n", step(n));
    else if (!strcmp(name, "cost")) printf("%ld\n", cost(i, n));
    else if (!strcmp(name, "label")) printf("%s\n", label(i, buffer));
    else if (!strcmp(name, "ratio")) printf("%.4f\n", ratio(n));
    else if (!strcmp(name, "curve")) {
        float v[8];
        for (int k = 0; k < 8; k++) v[k] = (float)(n + k);
        printf("%.3f\n", (double)curve(v));
    } else if (!strcmp(name, "count")) printf("%d\n", count(n));
    else if (!strcmp(name, "add")) printf("%d\n", add(n));
    else if (!strcmp(name, "thread")) printf("%d\n", thread(n));
    else if (!strcmp(name, "sorted")) printf("%d\n", sorted(n));
    else if (!strcmp(name, "text")) printf("%d\n", text(question));
    else if (!strcmp(name, "machine")) printf("%d\n", machine(n));
    else printf("?\n");
}
