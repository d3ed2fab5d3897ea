// Small library code (-fpic): on aarch64 it takes the page of the table of slots, and finds slots by their distance from there (D57).
#include <stdio.h>
int total = 5, calls;
extern int price(int n);

int step(int n) { total += price(n); calls++; fflush(stdout); return total + calls; }
