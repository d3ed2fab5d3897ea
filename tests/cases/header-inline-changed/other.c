#include "limit.h"

int other(int n) { return limit(n) + 2; }
int unrelated(int n) { return n - 1; }
