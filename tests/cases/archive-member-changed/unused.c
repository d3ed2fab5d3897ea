int unused(int n) { return n * 5; }
