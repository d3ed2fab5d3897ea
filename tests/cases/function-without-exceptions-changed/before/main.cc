// Code that no exception can pass through is patched as C is (E-EH).
#include <cstdio>
#include <cstdlib>

__attribute__((noinline)) int price(int n) { return n * 3; }

extern "C" void answer(const char *question) { std::printf("%d\n", price(std::atoi(question))); }
