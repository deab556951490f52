"""Program -> one self-contained C99 file, for microcontrollers and anything without Python.

The file holds, in this order: a comment that says how to use it, static memory, the C functions
that this network needs (:mod:`frostbit.export.c.functions`), its weights as constant arrays, and
``frostbit_run``, one call per layer. It includes ``stdint.h`` and ``string.h``, for Sigmoid and
Softmax ``math.h``, and allocates nothing. Two networks in one program need two prefixes in the
place of ``frostbit``; everything else in the file is static. :mod:`frostbit.export.c.header` writes
the declarations.

* A binary weight takes one bit; the weights of one output channel are rounded up to 32 bits.
* Where :mod:`frostbit.kernels.ir.exact` proves a Program exact, no option of a compiler, fused or
  wider arithmetic included, can change a result. Constants are written in hexadecimal, so that no
  compiler rounds them.
* With ``-DFROSTBIT_DEBUG`` the file keeps every sign in ``frostbit_debug_words``, one value
  after the other as in :func:`kept_signs`: the same code is shipped and checked.

Bytes are deterministic: nothing but the Program goes in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frostbit.export.c import text as c_text
from frostbit.export.c.calls import RULES, CFile
from frostbit.export.c.functions import WITH_EXP, source_of
from frostbit.export.c.header import PREFIX, check_prefix, image_of
from frostbit.export.c.steps import elements, places, steps_of
from frostbit.export.errors import ExportError
from frostbit.kernels.ir.exact import analyse
from frostbit.kernels.ir.file import program_hash
from frostbit.kernels.ir.program import INPUT, BinaryConv, Op, Program, Threshold, ValueType
from frostbit.kernels.ir.verify import infer_types
from frostbit.kernels.plan.fusion import Step

SCRATCH_TYPES = {
    "patch": "uint32_t",
    "mask": "uint32_t",
    "sums": "int32_t",
    "row": "float",
    "values_i16": "int16_t",
    "values_f32": "float",
}


@dataclass(frozen=True)
class Kept:
    """A bits value in ``frostbit_debug_words``.

    Attributes:
        name: the op's name.
        shape: ``(H, W, C)``; a pixel has ``ceil(C / 32)`` words.
        start, count: in 32-bit words.
    """

    name: str
    shape: tuple[int, int, int]
    start: int
    count: int


def kept_signs(program: Program) -> list[Kept]:
    """The bits values in the order of the Program, as the debug form keeps them."""
    types, kept, start = infer_types(program), [], 0
    for op in program.ops:
        value = types[op.name]
        if value.kind == "bits":
            kept.append(Kept(op.name, value.shape, start, elements(value)))
            start += elements(value)
    return kept


def _level_type(program: Program) -> type[np.int16] | type[np.int32]:
    levels = [
        np.abs(op.epilogue.level).max(initial=0)
        for op in program.ops
        if isinstance(op, BinaryConv) and isinstance(op.epilogue, Threshold)
    ]
    return np.int16 if max(levels, default=0) <= np.iinfo(np.int16).max else np.int32


def _pads_with_zero(op: Op, types: dict[str, ValueType]) -> bool:
    """Whether ``op`` counts bits and has to leave out those in the padding."""
    if not isinstance(op, BinaryConv) or types[op.inputs[0]].kind != "bits":
        return False
    return op.pad_value == 0 and any(op.window.pads)


def _dimensions(value: ValueType) -> str:
    return " x ".join(map(str, value.shape))


def _write_step(file: CFile, index: int, step: Step, kept: dict[str, Kept]) -> None:
    label = f"{index}: {c_text.comment(' + '.join(step.names))}"
    sizes = f"{_dimensions(file.types[step.source])} -> {_dimensions(file.types[step.op.name])}"
    about = f"{label} ({type(step.op).__name__}, {sizes})"
    file.constants.append(f"/* {about} */")
    before = len(file.constants)
    file.calls.append(f"    /* {about} */")
    RULES[type(step.op)](file, step, step.op, c_text.identifier(index, step.op.name))
    if len(file.constants) == before:
        file.constants.pop()
    if step.bits is not None:
        at = kept[step.bits]
        file.calls.append(f"    FB_KEEP({at.start}, {file.pointer(step.bits)}, {at.count});")


def _promise(program: Program) -> str:
    """What holds for every compiler, option and CPU."""
    verdict = analyse(program)
    if verdict.body_exact and verdict.head_exact:
        return "Every compiler and CPU gives the same logits, bit for bit: nothing rounds."
    if verdict.body_exact:
        return "Every compiler and CPU gives the same signs; the logits round in the last digits."
    return "This network is not exact: results differ a little between compilers and CPUs."


def _head(program: Program, file: CFile, ram: int, prefix: str) -> str:
    binary = sum(op.channels_out * op.taps for op in program.ops if isinstance(op, BinaryConv))
    share = f", {8 * file.binary_bytes / binary:.3f} bits each" if binary else ""
    height, width, channels = program.input_shape
    count, image = len(program.classes), image_of(program)
    link = "\n * Link:     with -lm, for expf" if file.kernels & WITH_EXP else ""
    return f"""\
/*
 * A binary neural network in one C99 file, written by Frostbit. Generated: do not edit.
 *
 * data set   {c_text.comment(program.dataset) or "not named"}, {count} classes
 * program    sha256 {program_hash(program)}
 * input      {image.meaning}, {height} x {width} x {channels} (height, width, channels last)
 * output     {count} float logits; the largest is the answer
 * flash      {file.constant_bytes:,} bytes of constants, code not counted
 *            ({file.binary_bytes:,} of them for {binary:,} binary weights{share})
 * RAM        {ram:,} bytes, all static; no malloc
 *
 * Use, one call at a time because its memory is static:
 *
 *     void {prefix}_run(const {image.type} *image, float *logits);
 *     extern const int32_t {prefix}_input_size, {prefix}_classes;
 *
 *     static {image.type} image[{height * width * channels}];
 *     float logits[{count}];
 *     {prefix}_run(image, logits);
 *
 * Compile:  cc -std=c99 -O2 -c model.c     (-O3 and the CPU's own options make it faster){link}
 *     -DFROSTBIT_CLASS_NAMES  adds {prefix}_class_names, one string per logit
 *     -DFROSTBIT_DEBUG        keeps every sign, to compare with another runtime
 *     -DFROSTBIT_PORTABLE     counts bits without the CPU's instruction
 *
 * {_promise(program)}
 */
"""


def _memory(file: CFile) -> tuple[str, int]:
    """C text of the static arrays, and their bytes."""
    sizes = {name: (SCRATCH_TYPES[name], n) for name, n in file.scratch.items()}
    arenas = {"floats": ("float", file.places.floats), "words": ("uint32_t", file.places.words)}
    lines, total = [], 0
    for name, (c_type, count) in {**arenas, **dict(sorted(sizes.items()))}.items():
        if count:
            lines.append(f"static {c_type} fb_{name}[{count}];")
            total += count * (2 if c_type == "int16_t" else 4)
    level = "int16_t" if file.level_type is np.int16 else "int32_t"
    if "binary_threshold" in file.kernels:
        lines.append(f"typedef {level} fb_level;")
    return "\n".join(lines) + "\n", total


def _debug(kept: list[Kept], prefix: str) -> str:
    """C text of what keeps the signs, with a table of where each value lies."""
    if not kept:
        return ""
    rows = "\n".join(
        f"   {each.start}: {c_text.comment(each.name)} ({' x '.join(map(str, each.shape))})"
        for each in kept
    )
    return f"""\
#ifdef FROSTBIT_DEBUG
/* First word of each value, channels packed in whole words:
{rows} */
uint32_t {prefix}_debug_words[{kept[-1].start + kept[-1].count}];
#define FB_KEEP(at, words, count) \\
    memcpy({prefix}_debug_words + (at), words, (count) * sizeof(uint32_t))
#else
#define FB_KEEP(at, words, count) ((void)0)
#endif
"""


def _interface(program: Program, prefix: str) -> str:
    height, width, channels = program.input_shape
    names = ",\n    ".join(c_text.string(name) for name in program.classes)
    count = len(program.classes)
    return f"""\
extern const int32_t {prefix}_input_size, {prefix}_classes;
const int32_t {prefix}_input_size = {height * width * channels};
const int32_t {prefix}_classes = {count};

#ifdef FROSTBIT_CLASS_NAMES
extern const char *const {prefix}_class_names[{count}];
const char *const {prefix}_class_names[{count}] = {{
    {names}
}};
#endif

void {prefix}_run(const {image_of(program).type} *image, float *logits);
"""


def convert(program: Program, prefix: str = PREFIX) -> bytes:
    """The bytes (ASCII) of ``model.c``. The same Program and prefix give the same bytes.

    Args:
        program: what to export.
        prefix: how the names that other files see begin, e.g. ``frostbit_run``.

    Raises:
        ExportError: naming an op without a rule here, a class name too long for C, or a prefix
            that is none.
        FormatError: if the program is malformed or needs more than 2 GiB of memory.
    """
    check_prefix(prefix)
    types, result = infer_types(program), program.ops[-1].name
    for op in program.ops:
        if type(op) not in RULES:
            raise ExportError(f"op '{op.name}': C export has no {type(op).__name__}")
    steps, kept = steps_of(program, types), kept_signs(program)
    pointers = {INPUT: "image", result: "logits"}
    file = CFile(
        types=types,
        places=places(steps, types, result),
        pointers=pointers,
        level_type=_level_type(program),
        masked=any(_pads_with_zero(op, types) for op in program.ops),
    )
    for index, step in enumerate(steps):
        _write_step(file, index, step, {each.name: each for each in kept})
    memory, ram = _memory(file)
    parts = [
        _head(program, file, ram, prefix),
        "#include <math.h>" if file.kernels & WITH_EXP else "",
        "#include <stdint.h>\n#include <string.h>\n",
        memory,
        source_of(file.kernels),
        *file.constants,
        _debug(kept, prefix),
        _interface(program, prefix),
        f"void {prefix}_run(const {image_of(program).type} *image, float *logits)\n{{",
        *file.calls,
        "}\n",
    ]
    return "\n".join(part for part in parts if part).encode("ascii")
