"""Grids of runs with seeds (the TOML files beside), their table and picture."""
