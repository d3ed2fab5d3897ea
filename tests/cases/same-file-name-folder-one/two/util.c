static int total;
static __attribute__((noinline, noclone)) int step(int n) { return total += n * 5; }
int two(int n) { return step(n) + 100; }
