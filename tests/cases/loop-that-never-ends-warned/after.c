// Fixed.
#include "ask.h"

#include <unistd.h>
static volatile int state = 1;
NOINLINE void forever(void) {
    for (;;) {
        state = state * 5 + 1;
        pause();
    }
}
void answer(const char *question) {
    if (question[0] == 'f') forever();
    printf("%d\n", state + 2);
}
