// A thread meets a plug-in's thread-local variables in the new code first, and their storage is made there (D48).
static __thread int mine = 3;
__thread int ours;

int step(int n) { return mine += n, ours++, mine * 10 + ours; }
