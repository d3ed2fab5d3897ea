// Fixed.
__attribute__((section(".interp"), used)) static const char loader[] = "/lib/ld.so";
static __thread int mine = 3;
__thread int ours;

int step(int n) { return mine += n * 2, ours++, mine * 10 + ours; }
