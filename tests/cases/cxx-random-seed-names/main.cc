#include "other.h"
#include <cstdio>
#include <cstdlib>

namespace {
int calls;
__attribute__((noinline)) int helper(int n) { return n * 7 + calls++; }
}
__attribute__((noinline)) int price(int n) { return helper(n) + 100; }
extern "C" void answer(const char *question) { printf("%d\n", price(atoi(question))); }
