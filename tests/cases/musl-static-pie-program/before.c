// A static program with musl inside: the smallest there is, with little padding (A).
#include "ask.h"
#include <errno.h>

static __thread int mine = 3;

NOINLINE int opened(const char *path) {
    mine++;
    FILE *file = fopen(path, "r");
    if (!file) return errno;
    fclose(file);
    return 0;
}

void answer(const char *question) {
    errno = 0;
    int result = opened(question);
    printf("%d %d %d\n", result, errno, mine);
}
