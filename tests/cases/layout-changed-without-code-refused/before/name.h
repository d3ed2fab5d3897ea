// The last member grows, and no instruction of this program shows it: objects of the old size are alive (D107).
struct name {
    int length;
    char text[16];
};
