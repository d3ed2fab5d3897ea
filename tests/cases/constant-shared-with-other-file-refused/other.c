extern const int weights[4];

int other(int n) { return weights[n & 3] * 100; }
