// The changed code is part of a loop that never returns: the packager is told that the running one stays (D91).
#include "ask.h"

#include <unistd.h>
static volatile int state = 1;
NOINLINE void forever(void) {
    for (;;) {
        state = state * 3 + 1;
        pause();
    }
}
void answer(const char *question) {
    if (question[0] == 'f') forever();
    printf("%d\n", state + 1);
}
