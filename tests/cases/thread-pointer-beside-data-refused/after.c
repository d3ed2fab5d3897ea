// Fixed.
#include "ask.h"

unsigned long ga = 11, gb = 22;

static inline unsigned long thread_pointer(void) {
    unsigned long own;
    __asm__ volatile("movq %%fs:0, %0" : "=r"(own));
    return own;
}

NOINLINE unsigned long beside(void) { return thread_pointer() + ga + 1000; }
NOINLINE unsigned long both(void) { return ga * 3 + gb; }

void answer(const char *question) {
    (void)question;
    printf("%lu %lu\n", beside() - thread_pointer(), both());
}
