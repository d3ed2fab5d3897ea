// Fixed.
#include <cstdio>
#include <cstdlib>
#include <execinfo.h>

#define NOINLINE __attribute__((noinline))

// How many frames a backtrace sees from here on.
NOINLINE int depth() {
    void *frames[64];
    return backtrace(frames, 64);
}

NOINLINE int levels(int n) { return n == 0 ? depth() : levels(n - 1) + 0 * n; }
NOINLINE int measured(int n) { return levels(n) + 100; }

extern "C" void answer(const char *question) {
    int here = depth();
    std::printf("%d\n", measured(std::atoi(question)) - here);
}
