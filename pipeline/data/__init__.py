"""Data sets, pictures, splits, and the images on which runtimes are compared."""
