// Fixed.
static int calls;
__attribute__((visibility("hidden"))) int rate(int n) { return n * 7 + calls++; }
