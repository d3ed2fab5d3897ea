// The object is part of the program and of its library: both are patched, each with its own state (D89).
static int calls;
__attribute__((visibility("hidden"))) int rate(int n) { return n * 3 + calls++; }
