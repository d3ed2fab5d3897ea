// Fixed.
#include <cstdio>
#include <cstdlib>

__attribute__((noinline)) int price(int n) { return n * 4; }

extern "C" void answer(const char *question) { std::printf("%d\n", price(std::atoi(question))); }
