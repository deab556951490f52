"""``python -m tests.pipeline.network.page``: writes ``docs/what-converts.md`` from the table."""

from __future__ import annotations

import inspect
import operator

from torch import nn

from frostbit.pipeline.network.table import TABLE, Entry
from tests import ROOT

PAGE = ROOT / "docs" / "what-converts.md"

HEAD = """# What converts

Written by `python -m tests.pipeline.network.page` from the table that `binarize` works by
(`pipeline/network/table.py`). A network may call what stands here, as a module of `torch.nn`, a
function or a method, with the arguments named here, by position or by name. Anything else is
refused by its name before training, with what to do instead; so is every argument that is not
named here, where it differs from PyTorch's default. No argument is dropped.

A subclass of a module here counts as that module if it overrides nothing that computes.
"""

TAIL = """
## How it is converted

- **The first layer** reads the pixels, alone and directly, without groups or dilation. **The last**
  one gives the logits: a dense layer, or a convolution before or after the global pool. Both stay
  in full precision.
- **Real maps** (a residual sum, a pooled average, a BatchNorm behind an activation) are binarized
  before the next convolution or dense layer reads them.
- **BatchNorm, factors and addends** go into the convolution before them. Where there is none (a
  pool, a sum or an activation stands between), they are a step of their own; before a sign that is
  exact and takes no more bits, elsewhere the factor is rounded to the grid of the network.
- **Averages** whose area is no power of two are sums, and the division goes into what follows:
  into BatchNorm, a dense layer or a convolution, where nothing is lost; before a sign it goes away.
  Where only a sum or a join follows, 1 / area is rounded to the grid.
- **One size**: sizes that the network asks for (`x.size(0)`, `x.shape[2:]`) are those of the
  example; the result is for images of that size.

## What is refused, beside what is not in the tables

- code that does something else in training than in evaluation (but dropout), depends on the values
  of a tensor, or draws random numbers;
- work in place on a value that is read again later;
- forward and backward hooks, so also pruning and the older weight_norm; parametrizations; a
  `forward` set on an instance; parts under `torch.no_grad()`;
- a module with weights called twice, parameters shared by two modules, parameters other than
  float32, BatchNorm without running statistics;
- a parameter that is computed with before it meets the image (`self.shift * 2`);
- products of maps, sums of maps of two shapes, a BatchNorm1d or a factor of a flattened map;
- several inputs (arguments with a default keep it), several outputs, logits that come out of an
  activation or a softmax.
"""


def _call(call: object) -> str:
    if isinstance(call, str):
        return f"`.{call}()`"
    name = str(getattr(call, "__name__", call))
    if call is getattr(operator, name, None):
        return f"`{OPERATORS[name]}`"
    home = "torch" if call is getattr(__import__("torch"), name, None) else "F"
    return f"`{home}.{name}`"


OPERATORS = {
    "add": "+", "iadd": "+=", "sub": "-", "isub": "-=", "mul": "*", "imul": "*=", "truediv": "/",
    "itruediv": "/=", "neg": "-x",
}  # fmt: skip


def _module(kind: type[nn.Module]) -> str:
    return f"`nn.{kind.__name__}`"


def arguments(entry: Entry) -> tuple[list[str], list[str]]:
    """The arguments that ``entry`` handles, and those that must keep their defaults."""
    parameters = list(inspect.signature(entry.rule).parameters.values())[2:]
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if any(parameter.kind in kinds for parameter in parameters):
        return ["all"], []
    handled = [p.name for p in parameters if p.annotation != "Refused"]
    return handled, [f"{p.name}={p.default!r}" for p in parameters if p.annotation == "Refused"]


def page() -> str:
    """The text of the page."""
    lines = [HEAD]
    for group in dict.fromkeys(entry.group for entry in TABLE):
        lines += [
            f"## {group}\n",
            "| call | arguments | only as | becomes |",
            "|---|---|---|---|",
        ]
        for entry in (each for each in TABLE if each.group == group):
            calls = [*map(_module, entry.modules), *map(_call, entry.calls)]
            handled, fixed = arguments(entry)
            cells = (
                ", ".join(calls),
                ", ".join(f"`{name}`" for name in handled),
                ", ".join(f"`{name}`" for name in fixed),
                entry.becomes,
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n" + TAIL


if __name__ == "__main__":
    PAGE.write_text(page())
