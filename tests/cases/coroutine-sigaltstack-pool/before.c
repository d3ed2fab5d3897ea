// A finished coroutine's stack is kept for the next, with return addresses into the function on it, as QEMU does: patched (A).
#include "ask.h"

#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>

enum { SIZE = 65536, GUARD = 65536 }; // The guard is whole pages of any size.

struct coroutine {
    void (*entry)(void);
    struct coroutine *caller;
    char *stack;
    sigjmp_buf env;
};

static struct coroutine leader, *born, *current = &leader;
static volatile sig_atomic_t called;
// In disguise, so that no other memory than is meant has the address.
static uintptr_t inside;
// An address that an old call has left, as requests that are done leave them on the heap.
static void *volatile left;

NOINLINE void qemu_coroutine_switch(struct coroutine *from, struct coroutine *to) {
    current = to;
    if (!sigsetjmp(from->env, 0)) siglongjmp(to->env, 1);
}

static void trampoline(int unused) {
    struct coroutine *self = born;
    (void)unused;
    called = 1;
    if (!sigsetjmp(self->env, 0)) return;
    for (;;) {
        self->entry();
        qemu_coroutine_switch(self, self->caller);
    }
}

static struct coroutine *create(void) {
    struct coroutine *co = malloc(sizeof *co);
    struct sigaction action = { .sa_handler = trampoline, .sa_flags = SA_ONSTACK };
    co->stack = mmap(NULL, GUARD + SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (co->stack == MAP_FAILED || mprotect(co->stack, GUARD, PROT_NONE)) exit(1);
    stack_t stack = { .ss_sp = co->stack, .ss_size = GUARD + SIZE }, none = { .ss_flags = SS_DISABLE };
    born = co;
    sigaction(SIGUSR2, &action, NULL);
    sigaltstack(&stack, NULL);
    raise(SIGUSR2);
    if (!called) exit(1);
    sigaltstack(&none, NULL);
    return co;
}

static void enter(struct coroutine *co, void (*entry)(void)) {
    co->entry = entry;
    co->caller = current;
    qemu_coroutine_switch(current, co);
}

// Remembers where its caller goes on after the call.
NOINLINE void remember(void) {
    inside = ~(uintptr_t)__builtin_return_address(0);
    left = __builtin_frame_address(0);
}

NOINLINE int work(int n) {
    volatile char room[512];
    room[n] = 0;
    remember();
    return n * 3 + room[n];
}

static void job(void) { work(1); }

// Whether the return address is still on the stack.
static int stale(const struct coroutine *co) {
    const uintptr_t *words = (const uintptr_t *)(co->stack + GUARD);
    for (size_t i = 0; i < SIZE / sizeof *words; i++)
        if (words[i] == ~inside) return 1;
    return 0;
}

void answer(const char *question) {
    static struct coroutine *pool;
    if (!strcmp(question, "start")) {
        pool = create();
        enter(pool, job);
        puts("finished");
    } else if (!strcmp(question, "stale")) {
        puts(stale(pool) ? "yes" : "no");
    } else {
        printf("%d\n", work(0));
    }
}
