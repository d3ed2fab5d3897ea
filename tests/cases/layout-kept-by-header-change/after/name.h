// Fixed.
struct name {
    int length; // without the final zero
    char text[16];
};
#define EXTRA 100
