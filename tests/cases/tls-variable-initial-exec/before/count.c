// A library that may be loaded at the start only reaches its thread-local variables through slots (D47).
static __thread int mine = 3;
__thread int ours;

int step(int n) { return mine += n, ours++, mine * 10 + ours; }
