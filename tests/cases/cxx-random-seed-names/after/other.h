// Fixed.


