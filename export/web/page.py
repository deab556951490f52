"""``model.html``: the network, its loader and a page to try it on, in one file without a server."""

from __future__ import annotations

import base64
import html
import json
from dataclasses import dataclass
from importlib.resources import files
from string import Template

import numpy as np

from frostbit.export.errors import ExportError
from frostbit.export.web.answers import answers
from frostbit.export.web.compiler import modules
from frostbit.kernels.ir.exact import analyse
from frostbit.kernels.ir.file import program_hash
from frostbit.kernels.ir.program import Program, Softmax

SCRIPTS = ("network.js", "picture.js", "page.js")


@dataclass(frozen=True)
class Setting:
    """What a page says beside the network itself.

    Attributes:
        margin: height and width that a photograph is resized to before it is cropped; None where
            the picture itself is fitted.
        engine: the engine's latency and where it was measured; "" if it was not.
    """

    margin: tuple[int, int] | None = None
    engine: str = ""


@dataclass(frozen=True)
class Parts:
    """Pieces of a page, for one that has more in it.

    Attributes:
        style: CSS.
        body: HTML of one section.
        script: what runs at the end of the body, as HTML.
    """

    style: str
    body: str
    script: str


def _asset(name: str) -> str:
    return (files("frostbit.export.web") / name).read_text("utf-8")


def base_style() -> str:
    """CSS that all pages begin with: colours by the reader's scheme, and the frame."""
    return _asset("base.css")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def require_pictures(program: Program) -> None:
    """ExportError, naming what is in the way, unless pictures can be shown to ``program``."""
    channels = program.input_shape[2]
    if channels not in (1, 3):
        raise ExportError(
            f"the web format shows pictures of 1 or 3 channels, and the model wants {channels}"
        )
    if program.input_kind == "f32" and program.preprocessing is None:
        raise ExportError(
            "the model takes floats, and its file does not say what pixels become: import it again "
            "with their range, e.g. --range -1..1"
        )


def _data(program: Program, setting: Setting) -> str:
    """All that the scripts read, as JSON that may stand in a page."""
    require_pictures(program)
    built, stored = modules(program), answers(program, program.preprocessing)
    known, verdict = program.preprocessing, analyse(program)
    mapping = None if known is None else [list(map(_rounded, x)) for x in (known.mul, known.add)]
    found = {
        "program": program_hash(program),
        "shape": program.input_shape,
        "classes": program.classes,
        "probabilities": isinstance(program.ops[-1], Softmax),
        "exact": verdict.body_exact,
        "margin": setting.margin,
        "mapping": mapping,
        "engine": setting.engine,
        "simd": _text(built.simd),
        "plain": _text(built.plain),
        "tail": _text(built.tail),
        "logits": _text(stored.logits.astype("<f4").tobytes()),
        "allowance": stored.allowance.tolist(),
        "signs": stored.signs,
        "signBits": stored.sign_bits,
        "keptBytes": stored.sign_bytes,
    }
    return json.dumps(found).replace("<", "\\u003c")  # no name of a class ends the script


def _rounded(value: float) -> float:
    """As the engine reads it: float32."""
    return float(np.float32(value))


def parts(program: Program, setting: Setting) -> Parts:
    """The section on ``program``, to put into a page.

    Raises:
        RuntimeMissing: there is no clang or no lld; with the remedy.
        ExportError: the model takes no pictures, or an op that C cannot express, named.
    """
    data = f'<script type="application/json" id="try-data">{_data(program, setting)}</script>'
    code = "\n".join(_asset(name) for name in SCRIPTS)
    return Parts(_asset("try.css"), _asset("try.html"), f"{data}\n<script>\n{code}</script>")


def page(program: Program, setting: Setting) -> bytes:
    """The bytes of ``model.html``; the same arguments and compiler give the same bytes.

    Raises:
        RuntimeMissing, ExportError: as :func:`parts`.
    """
    made, shape = parts(program, setting), " x ".join(map(str, program.input_shape))
    data_set = f", trained on {program.dataset}" if program.dataset else ""
    return (
        Template(_asset("page.html"))
        .substitute(
            title=html.escape(f"Try a binary neural network{data_set}"),
            about=html.escape(f"{shape} pixels, {len(program.classes)} classes, program "),
            program=program_hash(program)[:16],
            base=base_style(),
            style=made.style,
            body=made.body,
            script=made.script,
        )
        .encode()
    )
