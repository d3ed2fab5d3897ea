// Only the text of a string changes, not one instruction: differs that compare code alone miss it (D3).
#include "ask.h"

NOINLINE const char *greeting(void) { return "helo"; }

void answer(const char *question) { printf("%s %s\n", greeting(), question); }
