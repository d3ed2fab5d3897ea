// A library asks for its thread-local variables by calls: one by itself, and all of its own at once (D48).
static __thread int mine = 3;
__thread int ours;

int step(int n) { return mine += n, ours++, mine * 10 + ours; }
