// Fixed.
#include "ask.h"

long total = 5;

#ifdef __aarch64__
// The page of total, taken at the end of a page of code, and used behind one more load.
#define LOADED(value, n) \
    asm volatile("b 1f\n .fill (0xff8 - (. - step)) / 4,4,0xd503201f\n 1: adrp x9,total\n ldr x10,[%1]\n ldr %0,[x9,:lo12:total]" \
                 : "=&r"(value) : "r"(&n) : "x9", "x10", "memory")
#else
#define LOADED(value, n) value = total
#endif

NOCLONE __attribute__((aligned(4096))) long step(long n) {
    long value;
    LOADED(value, n);
    return total = value + n * 10;
}

void answer(const char *question) { printf("%ld\n", step(atoi(question))); }
