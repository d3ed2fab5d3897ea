__attribute__((visibility("hidden"))) int total;
__attribute__((visibility("hidden"), noinline)) int shared_step(int n) { return total += n; }
static int quiet = 9;
int *gives(void) { return &quiet; }
