// A program without coroutines has an address inside the function in memory that it has given back: nobody looks there (A).
#include "ask.h"

#include <stdint.h>

// In disguise, so that no other memory than is meant has the address.
static uintptr_t inside;

// Remembers where its caller goes on after the call.
NOINLINE void remember(void) { inside = ~(uintptr_t)__builtin_return_address(0); }

NOINLINE int work(int n) {
    remember();
    return n * 3;
}

void answer(const char *question) {
    if (!strcmp(question, "leave")) {
        work(1);
        void *volatile *memory = malloc(1000);
        memory[50] = (void *)~inside;
        free((void *)memory);
        puts("left");
    } else {
        printf("%d\n", work(0));
    }
}
