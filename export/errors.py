"""The errors of this package; each text says what is wrong and, where there is one, the remedy."""

from __future__ import annotations


class ExportError(ValueError):
    """A well-formed Program that a target cannot express exactly; the text names op and reason."""


class ParityError(ValueError):
    """The comparison itself is void: constant outputs, or a runtime that hides a sign tensor."""


class LceError(RuntimeError):
    """LCE refused the model, crashed or did not answer in time; the text says which."""


class RuntimeMissing(Exception):
    """A runtime's package is not installed; the text says how to install it."""


class UnknownNetwork(ValueError):
    """No network of that name; the text gives the nearest one."""


class SourceDiffers(ValueError):
    """A network that was read computes something else than its file does; the text says where."""
