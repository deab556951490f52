"""Frostbit: train binary neural networks, pack them, export them, run them, and prove the bits."""
