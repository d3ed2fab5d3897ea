// The program has its own tax(), which the library's price() must go on calling through its PLT (D55).
int tax(int n) { return n + 1; }

int price(int n) { return tax(n) * 3; }
