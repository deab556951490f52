"""A board: bundle, its check, remote benchmark, naming pictures."""
