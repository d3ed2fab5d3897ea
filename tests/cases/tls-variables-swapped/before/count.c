// The fix has a library's thread-local variables in another order: each keeps its value (D48).
static __thread int mine = 3, other = 40;

int step(int n) { return mine += n, other += 100, mine * 10 + other; }
