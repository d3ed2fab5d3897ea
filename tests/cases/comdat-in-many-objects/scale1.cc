#include "scale.h"
int use1(int n) { return scale(n) + 1; }
