int rate(int n);
int outside(int n) { return rate(n); }
