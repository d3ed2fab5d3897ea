// Debug information knows the build directory, so the build-id differs, and every loaded byte is the same (D54).
#include "ask.h"

static NOCLONE int price(int n) { return n * 3; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
