#include "ask.h"

int rate(int n);
void answer(const char *question) { printf("%d\n", rate(atoi(question))); }
