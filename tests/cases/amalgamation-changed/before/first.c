// The sources are joined into one file, which alone is compiled: who reads them cannot be seen, and lines move in what is joined (D74).
NOCLONE int first(int n) {
    assert(n >= 0);
    return n * 3;
}
