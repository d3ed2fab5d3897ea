// A library that can also be run looks like a program, and its thread-local variables are not where a program's are (D48).
__attribute__((section(".interp"), used)) static const char loader[] = "/lib/ld.so";
static __thread int mine = 3;
__thread int ours;

int step(int n) { return mine += n, ours++, mine * 10 + ours; }
