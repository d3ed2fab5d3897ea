int surcharge(int n) { return n + 50; }
