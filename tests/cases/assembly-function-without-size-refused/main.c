#include "ask.h"

int fast(int n);
int slow(int n);
void answer(const char *question) { printf("%d %d\n", fast(atoi(question)), slow(atoi(question))); }
