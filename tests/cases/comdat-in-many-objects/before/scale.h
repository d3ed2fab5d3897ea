// Six objects hold the same inline function, and the program has one copy of it: it is replaced once (D34).
inline __attribute__((noinline)) int scale(int n) { return n * 3 + 11; }
