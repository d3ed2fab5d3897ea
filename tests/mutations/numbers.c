// SPDX-License-Identifier: GPL-2.0-or-later
// Loops, switches, bits, recursion, callees. Each line of input is the name of a function and a number.
#include "ask.h"

static NOINLINE int collatz(int n) {
    int steps = 0;
    unsigned value = (unsigned)(n < 0 ? -n : n) + 1;
    while (value != 1 && steps < 200) {
        if (value % 2 == 0)
            value /= 2;
        else
            value = value * 3 + 1;
        steps++;
    }
    return steps;
}

static NOINLINE int dispatch(int n) {
    switch (n & 7) {
    case 0: return n + 10;
    case 1: return n * 2;
    case 2: return n - 7;
    case 3: return collatz(n);
    case 4: return n ^ 0x55;
    case 5: return -n;
    case 6: return n / 3;
    default: return 99;
    }
}

static NOINLINE const char *grade(int n) {
    switch (n) {
    case 0: return "none";
    case 1: return "one";
    case 2: return "few";
    case 3: return "some";
    case 4: return "many";
    case 5: return "most";
    default: return n < 0 ? "below" : "above";
    }
}

static NOINLINE int weight(int n) {
    int kind;
    switch (n % 6) {
    case 0: kind = 31; break;
    case 1: kind = 17; break;
    case 2: kind = 53; break;
    case 3: kind = 5; break;
    case 4: kind = 71; break;
    default: kind = 2; break;
    }
    return kind * 2;
}

static inline int scaled(int n, int factor) { return n * factor + 3; }

static NOCLONE int half(int n) { return n / 2; }

static NOINLINE int blend(int a, int b) { return scaled(a, 5) - scaled(b, 7) + half(a + b); }

static NOINLINE unsigned long long mix64(unsigned long long n) {
    n ^= n >> 33;
    n *= 0xff51afd7ed558ccdULL;
    n ^= n >> 29;
    n += n << 7;
    return n;
}

static NOINLINE int depth(int n) {
    if (n <= 0) return 1;
    if (n > 12) return depth(n / 2) + 1;
    return depth(n - 1) + depth(n - 2) % 10;
}

void answer(const char *question) {
    char name[32];
    int n = 0;
    if (sscanf(question, "%31s %d", name, &n) != 2) n = 0;
    if (!strcmp(name, "collatz")) printf("%d\n", collatz(n));
    else if (!strcmp(name, "dispatch")) printf("%d\n", dispatch(n));
    else if (!strcmp(name, "grade")) printf("%s\n", grade(n));
    else if (!strcmp(name, "weight")) printf("%d\n", weight(n));
    else if (!strcmp(name, "blend")) printf("%d\n", blend(n, 4));
    else if (!strcmp(name, "mix64")) printf("%llx\n", mix64((unsigned long long)n));
    else if (!strcmp(name, "depth")) printf("%d\n", depth(n));
    else printf("?\n");
}
