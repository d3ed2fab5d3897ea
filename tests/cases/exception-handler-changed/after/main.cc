// Fixed.
#include <cstdio>
#include <cstdlib>

__attribute__((noinline)) void fail(int n) {
    if (n < 0) throw n;
}

__attribute__((noinline)) int guarded(int n) {
    try {
        fail(n);
    } catch (int code) {
        return code * 3;
    }
    return n;
}

extern "C" void answer(const char *question) { std::printf("%d\n", guarded(std::atoi(question))); }
