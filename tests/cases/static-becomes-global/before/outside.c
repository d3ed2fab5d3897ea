int outside(int n) { return n / 5; }
