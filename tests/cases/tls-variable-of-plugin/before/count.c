// A library that is loaded while the program runs has its thread-local variables wherever there was room for them (D48).
static __thread int mine = 3;
__thread int ours;

int step(int n) { return mine += n, ours++, mine * 10 + ours; }
