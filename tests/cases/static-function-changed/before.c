// A static function has a local symbol only; its name may stand for several (D2).
#include "ask.h"

static NOCLONE int price(int n) { return n * 3; }

void answer(const char *question) { printf("%d\n", price(atoi(question))); }
