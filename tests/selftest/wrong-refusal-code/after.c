// It is refused, and with another code.
#include "ask.h"

int limit = 20;

void answer(const char *question) { printf("%d\n", atoi(question) + limit++); }
