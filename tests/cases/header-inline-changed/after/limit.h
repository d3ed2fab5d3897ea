// Fixed.
static inline int limit(int n) { return n > 20 ? 20 : n; }
