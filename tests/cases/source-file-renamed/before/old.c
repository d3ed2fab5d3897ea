// The fix renames a file and changes one of its functions; the other keeps its twin (D90).
static int calls;

int price(int n) { return n * 3 + calls++; }
int half(int n) { return n / 2; }
