#include "ask.h"

int used(int n);

void answer(const char *question) { printf("%d\n", used(atoi(question))); }
