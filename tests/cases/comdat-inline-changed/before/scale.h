// An inline function of C++ stands in both objects and once in the program: that one copy is patched (D33).
inline __attribute__((noinline)) int scale(int n) { return n * 2; }
