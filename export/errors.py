"""The error of the exporters."""

from __future__ import annotations


class ExportError(ValueError):
    """A well-formed Program that a target cannot express exactly; the text names op and reason."""
