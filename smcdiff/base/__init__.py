"""What all other packages stand on: pytrees, densities, files, pixels, progress."""
