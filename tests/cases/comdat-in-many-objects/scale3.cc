#include "scale.h"
int use3(int n) { return scale(n) + 3; }
