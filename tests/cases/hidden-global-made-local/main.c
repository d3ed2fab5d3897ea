#include "ask.h"

int price(int n);
void answer(const char *question) { printf("%d\n", price(atoi(question))); }
