// Fixed.
#define USED 2
#define OTHER 5
