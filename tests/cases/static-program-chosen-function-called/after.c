// Fixed.
#include "ask.h"

NOINLINE int measured(const char *text) { return text[0] + (int)strlen(text) * 1000; }

void answer(const char *question) {
    char copy[64] = "";
    strncat(copy, question, sizeof copy - 1);
    printf("%d %zu\n", measured(copy), strlen(copy) + (strchr(copy, 'b') ? 1 : 0));
}
