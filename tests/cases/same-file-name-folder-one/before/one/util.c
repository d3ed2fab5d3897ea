// Two files are called util.c, with statics of the same names: the fix is in folder one (D51).
static int total;
static __attribute__((noinline, noclone)) int step(int n) { return total += n * 3; }
int one(int n) { return step(n) + 100; }
