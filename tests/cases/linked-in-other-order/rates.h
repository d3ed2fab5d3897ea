int rate(int n);
const char *rate_name(int n);
