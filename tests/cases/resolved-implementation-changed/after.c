// Fixed.
#include "ask.h"

static NOCLONE int plain(int n) { return n * 4; }
static NOCLONE int clever(int n) { return n * 5; }
static int (*choose(void))(int) { return plain; }
int chosen(int n) __attribute__((ifunc("choose")));
int (*volatile keep)(int) = clever;

void answer(const char *question) { printf("%d\n", chosen(atoi(question))); }
