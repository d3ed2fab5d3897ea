// Fixed.
static __thread int mine = 3;
extern __thread int theirs;

int step(int n) { return mine += n + theirs; }
