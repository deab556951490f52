"""The version of Frostbit: the package's, ``frostbit.__version__``, and that in exported files.

It is written here alone; ``pyproject.toml`` reads it, and files do not depend on how the package
was installed.
"""

VERSION = "0.1.0"
