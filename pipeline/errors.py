"""The one exception that a person may cause."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what was asked for: one line that ends with the remedy (exit status 2)."""
