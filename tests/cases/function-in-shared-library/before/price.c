// The function lives in a shared library that the program was linked with, and keeps state there (A).
static int calls;

int price(int n) { return n * 3 + ++calls; }
