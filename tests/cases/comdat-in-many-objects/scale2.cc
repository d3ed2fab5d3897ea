#include "scale.h"
int use2(int n) { return scale(n) + 2; }
