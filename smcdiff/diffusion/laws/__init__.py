"""Laws of x_s given x_t."""
