"""Is a module of this checkout imported under two names, such as ``kernels`` too?"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from tests import ROOT

OLD_NAMES = ("kernels", "export", "pipeline")


def imported_twice(modules: Mapping[str, ModuleType]) -> list[str]:
    """Names, old ones, under which files of this checkout are in ``modules``."""
    found = []
    for name, module in list(modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.partition(".")[0] in OLD_NAMES and file.startswith(str(ROOT)):
            found.append(name)
    return found
