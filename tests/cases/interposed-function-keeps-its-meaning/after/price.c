// Fixed.
int tax(int n) { return n + 1; }

int price(int n) { return tax(n) * 5; }
