// Threads throw and catch without a pause, through functions that patches replace (A).
// SPDX-License-Identifier: GPL-2.0-or-later
#include <atomic>
#include <cstdio>
#include <cstring>
#include <execinfo.h>
#include <thread>

#define NOINLINE __attribute__((noinline))

static std::atomic<long> rounds, wrong, destroyed, made;

struct Witness {
    Witness() { made++; }
    ~Witness() { destroyed++; }
};

NOINLINE void thrower(int n) {
    if (n % 2) throw n;
    if (n % 3 == 0) throw "three";
}

NOINLINE int middle(int n) {
    Witness witness;
    thrower(n);
    return 100;
}

NOINLINE int outer(int n) {
    try {
        return middle(n);
    } catch (const char *) {
        return 200;
    }
}

static int once(int n) {
    try {
        return outer(n);
    } catch (int code) {
        return code == n ? 300 : -1;
    }
}

/* Each of these is right with the old code or with a new one. */
static bool right(int n, int got) {
    int base = n % 2 ? 300 : n % 3 == 0 ? 200 : 100;
    return got == base || (base < 300 && got == base + 1);
}

static void run() {
    for (int n = 0;; n = (n + 1) % 6) {
        if (!right(n, once(n))) wrong++;
        rounds++;
        // Half of the time it is somewhere else.
        for (volatile int i = 0; i < 2000; i = i + 1) {}
    }
}

extern "C" void answer(const char *question) {
    static bool started;
    if (std::strcmp(question, "start") == 0 && !started) {
        started = true;
        for (int i = 0; i < 3; i++) std::thread(run).detach();
        std::puts("started");
    } else if (std::strcmp(question, "versions") == 0) {
        std::printf("%d %d %d\n", once(2), once(0), once(1));
    } else {
        static long last;
        bool moved = rounds > last;
        last = rounds;
        void *frames[8];
        std::printf("%ld wrong, %s, %d frames\n", wrong.load(), moved ? "moving" : "stuck", backtrace(frames, 8) > 2);
    }
}
