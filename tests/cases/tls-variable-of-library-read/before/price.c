// A library's thread-local variable is reached through the slot that its initial-exec code has (D49).
static __thread int calls __attribute__((tls_model("initial-exec"))) = 10;

int price(int n) { return calls += n; }
