// A changed function beside a global object with an initialiser that stays the same (D42).
#include <cstdio>
#include <cstdlib>

struct Limit {
    int value;
    Limit(int n) { value = n + std::atoi("1"); }
};

Limit limit(10);

__attribute__((noinline)) int clamp(int n) { return n > limit.value ? limit.value : n; }

extern "C" void answer(const char *question) { std::printf("%d\n", clamp(std::atoi(question))); }
