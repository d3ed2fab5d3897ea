// Fixed.
inline __attribute__((noinline)) int scale(int n) { return n * 4 + 11; }
