#include "ask.h"

int step(int n);
void answer(const char *question) { printf("%d\n", step(atoi(question))); }
