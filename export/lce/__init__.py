"""Larq Compute Engine: converter, TFLite reader and writer, and LCE's own interpreter."""
