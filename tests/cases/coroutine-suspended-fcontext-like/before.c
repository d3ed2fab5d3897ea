// A coroutine waits inside the function, and only a pointer to its stack leads there: busy; what it leaves on it is none (A).
#include "ask.h"

#include <sys/mman.h>

enum { SIZE = 65536, GUARD = 4096 };

// Goes on at `to`, and returns there where the switch away from it was called.
void *jump_fcontext(void **from, void *to);
__asm__(".globl jump_fcontext\n.type jump_fcontext, @function\njump_fcontext:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
        ".size jump_fcontext, . - jump_fcontext\n");

static void *home, *aside;

NOINLINE int wait_here(int n) {
    if (n) jump_fcontext(&aside, home);
    return n * 3;
}

static void coroutine(void) {
    wait_here(1);
    for (;;) jump_fcontext(&aside, home);
}

void answer(const char *question) {
    if (!strcmp(question, "suspend")) {
        char *stack = mmap(NULL, GUARD + SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED || mprotect(stack, GUARD, PROT_NONE)) exit(1);
        void **top = (void **)(stack + GUARD + SIZE) - 2;
        *--top = (void *)coroutine;
        aside = top - 6;
        jump_fcontext(&home, aside);
        puts("suspended");
    } else if (!strcmp(question, "resume")) {
        jump_fcontext(&home, aside);
        puts("left");
    } else {
        printf("%d\n", wait_here(0));
    }
}
