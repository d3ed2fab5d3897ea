// A hidden global is a local symbol of the linked library; another file of it has a static of the same name (D52).
__attribute__((visibility("hidden"))) int shared_step(int n);
extern __attribute__((visibility("hidden"))) int total;
int price(int n) { return shared_step(n) + total * 2 + n; }
