// Fixed.
static __thread int other = 40, mine = 3;

int step(int n) { return mine += n * 2, other += 100, mine * 10 + other; }
