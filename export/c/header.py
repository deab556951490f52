"""The declarations of a C file, for C and C++: ``model.h`` beside ``model.c``.

The C file needs no header and includes none, so that it can be moved and renamed alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from frostbit.export.errors import ExportError
from frostbit.kernels.ir.program import Program

PREFIX = "frostbit"
_USABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,30}")
_OURS = "fb"
"""Prefix of what is static in every file."""


def check_prefix(prefix: str) -> None:
    """ExportError unless ``prefix`` can begin the names of one network."""
    if not _USABLE.fullmatch(prefix) or prefix == _OURS:
        raise ExportError(
            f"'{prefix[:40]}' cannot begin names in C: take 1 to 31 letters, digits and "
            f"underscores that begin with a letter, and are not '{_OURS}'; e.g. gesture"
        )


@dataclass(frozen=True)
class Image:
    """How C code hands over one image.

    Attributes:
        type: C type of a value.
        meaning: what the values are.
    """

    type: str
    meaning: str


def image_of(program: Program) -> Image:
    """How one image of ``program`` is handed over."""
    if program.input_kind == "f32":
        return Image("float", "floats as its source took them")
    return Image("uint8_t", "uint8 pixels 0..255")


def header(program: Program, prefix: str = PREFIX) -> bytes:
    """The bytes (ASCII) of ``model.h``; ExportError if ``prefix`` is none."""
    check_prefix(prefix)
    name, image = prefix.upper(), image_of(program)
    height, width, channels = program.input_shape
    unit = "bytes" if image.type == "uint8_t" else "floats"
    counted = f"{unit}: {height} x {width} x {channels}"
    return f"""\
/*
 * The network of {prefix}_run, written by Frostbit beside its C file. Generated: do not edit.
 *
 * Its working memory is static: nothing is allocated, and one call must end before the next
 * begins, also on another thread or in an interrupt.
 */
#ifndef {name}_H
#define {name}_H

#include <stdint.h>

#define {name}_INPUT_SIZE {height * width * channels} /* {counted} */
#define {name}_CLASSES {len(program.classes)}

#ifdef __cplusplus
extern "C" {{
#endif

/* image: {image.meaning} in rows, channels last; logits: one float per class. */
void {prefix}_run(const {image.type} *image, float *logits);

extern const int32_t {prefix}_input_size, {prefix}_classes;

/* Only in a C file that is compiled with -DFROSTBIT_CLASS_NAMES. */
extern const char *const {prefix}_class_names[{len(program.classes)}];

#ifdef __cplusplus
}}
#endif

#endif
""".encode("ascii")
