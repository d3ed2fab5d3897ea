int used(int n) { return n * 5; }
