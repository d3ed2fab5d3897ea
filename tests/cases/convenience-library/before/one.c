// One archive was unpacked into another, as libtool does with convenience libraries (D87).
static int calls;
static __attribute__((noinline, noclone)) int step(int n) { return n * 3 + calls++; }
int one(int n) { return step(n); }
