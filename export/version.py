"""Version of Frostbit as exported files carry it; a test holds it to ``pyproject.toml``.

It is written here because files must not depend on how the package was installed.
"""

VERSION = "0.1.0"
