"""What of a Program no exporter may drop in silence: refused by name until a format has it."""

from __future__ import annotations

from frostbit.export.errors import ExportError
from frostbit.kernels.ir.program import Affine, BinaryConv, Clip, Program


def require_plain(program: Program, form: str) -> None:
    """ExportError naming the first thing of ``program`` that ``form`` does not have yet."""
    if program.input_kind != "u8":
        raise ExportError(f"{form} export has no float input yet")
    for op in program.ops:
        if isinstance(op, Clip) and (op.low, op.high) != (-1.0, 1.0):
            raise ExportError(f"op '{op.name}': {form} export has no limits {op.low}, {op.high}")
        epilogue = op.epilogue if isinstance(op, BinaryConv) else None
        if isinstance(epilogue, Affine) and epilogue.is_clipped:
            raise ExportError(f"op '{op.name}': {form} export has no clipped sums yet")
