#include "scale.h"
int use5(int n) { return scale(n) + 5; }
