// The changed object is a member of a static archive that the program links (D85).
int used(int n) { return n * 3 / (n & 7); }
