// Fixed.
#include "ask.h"

// Uses nothing but the result register, so that a caller may keep values in all the others.
NOCLONE int used(void) { return 2; }

// What a caller that knows all that may do: every register that calls may change holds a value across the call.
static int kept(void) {
    long bad;
    int result;
    __asm__ volatile("sub $128, %%rsp\n"
                     "mov $11, %%rcx\nmov $12, %%rdx\nmov $13, %%rsi\nmov $14, %%rdi\n"
                     "mov $15, %%r8\nmov $16, %%r9\nmov $17, %%r10\nmov $18, %%r11\n"
                     "movq %%rcx, %%xmm0\nmovq %%rdx, %%xmm7\nmovq %%r8, %%xmm15\n"
                     "call used\n"
                     "mov %%eax, %1\n"
                     "sub $11, %%rcx\nsub $12, %%rdx\nsub $13, %%rsi\nsub $14, %%rdi\n"
                     "sub $15, %%r8\nsub $16, %%r9\nsub $17, %%r10\nsub $18, %%r11\n"
                     "or %%rdx, %%rcx\nor %%rsi, %%rcx\nor %%rdi, %%rcx\nor %%r8, %%rcx\n"
                     "or %%r9, %%rcx\nor %%r10, %%rcx\nor %%r11, %%rcx\n"
                     "movq %%xmm0, %%rax\nsub $11, %%rax\nor %%rax, %%rcx\n"
                     "movq %%xmm7, %%rax\nsub $12, %%rax\nor %%rax, %%rcx\n"
                     "movq %%xmm15, %%rax\nsub $15, %%rax\nor %%rax, %%rcx\n"
                     "add $128, %%rsp\n"
                     "mov %%rcx, %0\n"
                     : "=&r"(bad), "=&r"(result)
                     :
                     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0", "xmm7", "xmm15", "memory", "cc");
    return bad ? -1 : result;
}

NOCLONE int other(void) { return 5; }

void answer(const char *question) { printf("%d\n", kept() + other() + atoi(question)); }
