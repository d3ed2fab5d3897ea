// Fixed.
static int calls;
static __attribute__((noinline, noclone)) int step(int n) { return n * 4 + calls++; }
int one(int n) { return step(n); }
