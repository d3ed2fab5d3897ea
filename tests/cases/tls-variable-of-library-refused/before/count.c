// A library asks __tls_get_addr where its thread-local variables are, with a slot that a patch does not have (E-TLS-MODEL).
static __thread int mine = 3;
__thread int ours;

int step(int n) { return mine += n, ours++, mine * 10 + ours; }
