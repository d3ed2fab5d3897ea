static int calls = 50;
static __attribute__((noinline, noclone)) int step(int n) { return n * 5 + calls++; }
int two(int n) { return step(n); }
