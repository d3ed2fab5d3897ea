// A variable lies farther from the code than one jump of some machines reaches: the patch lies near the code and reads it (A).
#include "ask.h"

static char much[400 << 20];
int far[4];

void put(int at, int value) {
    much[sizeof much - 1 - at] = (char)value;
    far[at] = value;
}

NOINLINE int sum(int at) { return much[sizeof much - 1 - at] + far[at]; }

void answer(const char *question) {
    put(atoi(question), 7);
    printf("%d\n", sum(atoi(question)));
}
