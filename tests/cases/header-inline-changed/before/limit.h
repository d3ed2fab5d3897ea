// An inline function in a header changes: every user in every object is patched (D29).
static inline int limit(int n) { return n > 10 ? 10 : n; }
