// Fixed.
NOCLONE int first(int n) {
    assert(n >= 0);
    if (n > 100)
        return 300;
    n += 1;
    return n * 3;
}
