"""Micro-kernels: the innermost products, counts and epilogues on registers."""
