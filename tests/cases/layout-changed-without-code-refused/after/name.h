// Fixed.
struct name {
    int length;
    char text[64];
};
