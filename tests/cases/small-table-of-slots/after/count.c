// Fixed.
#include <stdio.h>
int total = 5, calls;
extern int price(int n);

int step(int n) { total += price(n) * 10; calls++; fflush(stdout); return total + calls; }
