"""Trained network -> Program: fold BatchNorm, settle on the grid, lower, pack."""
