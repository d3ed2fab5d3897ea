static int given;

int discount(int n) { return n - 1 - given++; }
