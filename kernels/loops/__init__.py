"""Compiled steps of the op table: loops over tiles around the micro-kernels."""
