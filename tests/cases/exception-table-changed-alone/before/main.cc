// Only the exception table of a function changes: what it catches (D40).
#include <cstdio>
#include <cstdlib>

struct First { int n; };
struct Second { int n; };

__attribute__((noinline)) void thrower(int n) {
    if (n < 0) throw First{n};
    if (n == 0) throw Second{n};
}

// The code is the same whatever is caught: the table tells.
__attribute__((noinline)) int guarded(int n) {
    try {
        thrower(n);
    } catch (const First &) {
        return 1;
    }
    return 0;
}

extern "C" void answer(const char *question) {
    try {
        std::printf("%d\n", guarded(std::atoi(question)));
    } catch (const First &) {
        std::puts("first");
    } catch (const Second &) {
        std::puts("second");
    }
}
