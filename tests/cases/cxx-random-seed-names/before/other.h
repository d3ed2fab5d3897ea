// Names of C++ that hold a random number are the same function in both compiles (D77).
