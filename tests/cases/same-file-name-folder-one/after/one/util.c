// Fixed.
static int total;
static __attribute__((noinline, noclone)) int step(int n) { return total += n * 6; }
int one(int n) { return step(n) + 100; }
