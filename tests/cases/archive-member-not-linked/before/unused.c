// The changed member of the archive is not part of the program: nothing to patch (D85).
int unused(int n) { return n * 3; }
