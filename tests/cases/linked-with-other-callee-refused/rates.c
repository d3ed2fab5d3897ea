#include "rates.h"
#include "ask.h"

static int calls;
static const char *const names[] = { "low", "middle", "high" };
static const short rates[] = { 7, 11, 13 };

NOINLINE int rate(int n) { return calls++, rates[(n + calls) % 3]; }
NOINLINE const char *rate_name(int n) { return names[n % 3]; }
