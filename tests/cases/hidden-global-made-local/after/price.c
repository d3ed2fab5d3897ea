// Fixed.
__attribute__((visibility("hidden"))) int shared_step(int n);
extern __attribute__((visibility("hidden"))) int total;
int price(int n) { return shared_step(n) + total + n; }
