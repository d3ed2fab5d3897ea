// After the fix two objects hold different bodies of the one inline function that the program has (D35).
#ifndef FACTOR
#define FACTOR 3
#endif
inline __attribute__((noinline)) int scale(int n) { return n * FACTOR + 11; }
