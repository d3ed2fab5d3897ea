__attribute__((visibility("hidden"))) int rate(int n);
int part(int n) { return rate(n) + 100; }
