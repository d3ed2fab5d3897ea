// musl's loader fills the words that calls for thread-local variables take, and never moves what it has loaded (D48).
static __thread int mine = 3;
__thread int ours;

int step(int n) { return mine += n, ours++, mine * 10 + ours; }
