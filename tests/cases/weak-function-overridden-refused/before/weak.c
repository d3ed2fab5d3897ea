// The fix changes the weak function, and the program runs the strong one of another file (D32).
__attribute__((weak)) int rate(int n) { return n * 3 + 11; }
