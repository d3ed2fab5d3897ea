// Fixed.
#ifndef FACTOR
#define FACTOR 4
#endif
inline __attribute__((noinline)) int scale(int n) { return n * FACTOR + 11; }
