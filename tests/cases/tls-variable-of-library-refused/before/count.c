// The fix reaches another library's thread-local variable, for which this one has no slot of any kind (E-TLS-MODEL).
static __thread int mine = 3;

int step(int n) { return mine += n; }
