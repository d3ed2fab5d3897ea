int total;
int gap;
int other(int n) { return total += n; }
