// Fixed.
int used(int n) { return n * 4 / (n & 7); }
