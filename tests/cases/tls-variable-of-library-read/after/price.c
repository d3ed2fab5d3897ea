// Fixed.
static __thread int calls __attribute__((tls_model("initial-exec"))) = 10;

int price(int n) { return calls += n * 100; }
