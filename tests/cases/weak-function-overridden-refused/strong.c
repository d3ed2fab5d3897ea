int rate(int n) { return n * 7 + 11; }
