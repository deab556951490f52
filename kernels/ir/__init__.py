"""The Program: ops, bits, checks, exactness, the reference in NumPy, and its file."""
