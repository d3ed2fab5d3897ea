#define FACTOR 5
