"""Prints assembly: ``python -m tests.kernels.micro.asm_probe KERNEL [TRIPLE CPU]``.

With a triple and a CPU the LLVM IR is compiled for that machine instead of the one that Numba
compiles for; what the kernels' own code asks of the target is decided at import, from
``NUMBA_CPU_FEATURES``.
"""

import re
import sys

import llvmlite.binding as llvm
import numba
from numba import types

from frostbit.kernels.micro import floats, fused, lookup, xnor
from frostbit.kernels.micro.operands import Affine, Limits, Parts, Taps, Tile

_xnor, _lookup = xnor.xnor_tile, lookup.lookup_two
_floats = floats.float_tile
_threshold, _affine = fused.threshold_two, fused.affine_two_both


def _count(source, pixels, offsets, words, weights, counts):
    _xnor(Tile(source, pixels), Taps(offsets, words, weights), counts)


def _look_up(tables, indices, stride, rows, step, triples, counts, apart):
    pairs, weights, out = Parts(indices, stride), Parts(rows, step), Parts(counts, apart)
    _lookup(tables, pairs, weights, triples, out)


def _thresholded(source, pixels, offsets, words, weights, limits, bits):
    _threshold(Tile(source, pixels), Taps(offsets, words, weights), limits, bits)


def _to_sums(source, pixels, offsets, words, weights, start, mul, add, old, far, out, to, b, s):
    tile, taps = Tile(source, pixels), Taps(offsets, words, weights)
    none = Limits(0, 0, 0, 0)
    _affine(tile, taps, Affine(start, mul, add), Parts(old, far), Parts(out, to), b, s, none)


def _real(source, pixels, offsets, values, weights, add, low, high, least, most, out, bits):
    limits = Limits(low, high, least, most)
    _floats(Tile(source, pixels), Taps(offsets, values, weights), add, limits, out, bits)


KERNELS = {
    "float": (_real, 12),
    "xnor": (_count, 6),
    "lookup": (_look_up, 8),
    "threshold": (_thresholded, 7),
    "affine": (_to_sums, 14),
}


def assembly(kernel: str, triple: str = "", cpu: str = "") -> str:
    """Assembly of ``kernel``, for this process's target or another one."""
    function, count = KERNELS[kernel]
    compiled = numba.njit(no_cpython_wrapper=True)(function)
    compiled.compile((types.int64,) * count)
    (signature,) = compiled.signatures
    if not triple:
        return str(compiled.inspect_asm(signature))
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    text = str(compiled.inspect_llvm(signature))
    text = re.sub(r'target (triple|datalayout) = ".*"\n', "", text)
    text = re.sub(r'"(target-cpu|target-features|tune-cpu|probe-stack)"="[^"]*"', "", text)
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = triple, str(machine.target_data)
    return str(machine.emit_assembly(module))


if __name__ == "__main__":
    print(assembly(*sys.argv[1:]))
