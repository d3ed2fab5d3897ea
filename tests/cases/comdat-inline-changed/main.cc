#include "scale.h"
#include <cstdio>
#include <cstdlib>

int other(int n);
extern "C" void answer(const char *question) {
    int n = std::atoi(question);
    std::printf("%d %d\n", scale(n), other(n));
}
