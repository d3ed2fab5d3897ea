#include "scale.h"
int use0(int n) { return scale(n); }
