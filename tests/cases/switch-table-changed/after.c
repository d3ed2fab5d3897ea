// Fixed.
#include "ask.h"

NOINLINE int fee(int country) {
    switch (country) {
    case 1: return 31;
    case 2: return 1128;
    case 3: return -5;
    case 4: return 300;
    case 5: return 77;
    case 6: return 9000;
    case 7: return 12;
    default: return -1;
    }
}

void answer(const char *question) { printf("%d\n", fee(atoi(question))); }
