// A library for aarch64 that calls __tls_get_addr, as all did before descriptors; for x86_64 each variable on its own (D48).
static __thread int mine = 3;
__thread int ours;

int step(int n) { return mine += n, ours++, mine * 10 + ours; }
