#include "scale.h"
int use4(int n) { return scale(n) + 4; }
