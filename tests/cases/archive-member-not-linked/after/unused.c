// Fixed.
int unused(int n) { return n * 4; }
