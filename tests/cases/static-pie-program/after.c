// Fixed.
#include "ask.h"
#include <errno.h>

static __thread int mine = 3;

NOINLINE int opened(const char *path) {
    mine += 10;
    FILE *file = fopen(path, "r");
    if (!file) {
        int why = errno;
        errno = 77;
        return 1000 + why;
    }
    fclose(file);
    return 0;
}

void answer(const char *question) {
    errno = 0;
    int result = opened(question);
    printf("%d %d %d\n", result, errno, mine);
}
