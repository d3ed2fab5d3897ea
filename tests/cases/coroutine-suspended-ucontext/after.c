// Fixed.
#include "ask.h"

#include <ucontext.h>

static ucontext_t home, aside;
static char *stack;

NOINLINE int wait_here(int n) {
    if (n) swapcontext(&aside, &home);
    return n * 3 + 7;
}

static void coroutine(void) { wait_here(1); }

void answer(const char *question) {
    if (!strcmp(question, "suspend")) {
        stack = malloc(65536);
        getcontext(&aside);
        aside.uc_stack.ss_sp = stack;
        aside.uc_stack.ss_size = 65536;
        aside.uc_link = &home;
        makecontext(&aside, coroutine, 0);
        swapcontext(&home, &aside);
        puts("suspended");
    } else if (!strcmp(question, "resume")) {
        swapcontext(&home, &aside);
        // What a coroutine leaves behind in ordinary memory counts, whoever the memory belongs to by now.
        explicit_bzero(stack, 65536);
        explicit_bzero(&aside, sizeof aside);
        free(stack);
        puts("left");
    } else {
        printf("%d\n", wait_here(0));
    }
}
