// A library finds its thread-local variables through descriptors, which a loader may fill at the first use only (D48).
static __thread int mine = 3;
__thread int ours;

int step(int n) { return mine += n, ours++, mine * 10 + ours; }
