// In a static program a resolver chose the string function that fits the processor: new calls take the choice that was made (A).
#include "ask.h"

NOINLINE int measured(const char *text) { return text[0]; }

void answer(const char *question) {
    char copy[64] = "";
    strncat(copy, question, sizeof copy - 1);
    printf("%d %zu\n", measured(copy), strlen(copy) + (strchr(copy, 'b') ? 1 : 0));
}
