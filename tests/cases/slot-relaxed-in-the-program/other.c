int total;
int step(int n) { return n * 2; }
