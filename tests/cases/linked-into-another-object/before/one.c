// Two objects were linked into one (ld -r), which went into the program (D87).
static int calls;
static __attribute__((noinline, noclone)) int step(int n) { return n * 3 + calls++; }
int one(int n) { return step(n); }
