int __real_helper(int n);
int __wrap_helper(int n) { return __real_helper(n) + 1000; }
