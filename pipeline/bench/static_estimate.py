"""Cycles of the counting loop on CPUs that are not here, estimated from their assembly.

Numba's own LLVM code of a micro-kernel is optimised and compiled for another CPU; its innermost
loop goes through ``llvm-mca``, which knows how many instructions of which kind that CPU starts at a
time. The estimate holds for data in the first-level cache and counts nothing but that loop: it is a
limit, never a latency. ``python -m frostbit.pipeline.bench.static_estimate KERNEL TRIPLE CPU...``
prints the assembly, a section for each CPU (in a process of its own, as kernels choose their form
at import).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import llvmlite.binding as llvm
from rich.table import Table

from frostbit.kernels.machine import cpu as features
from frostbit.kernels.machine.jit import cache_folder

ARM = "aarch64-unknown-linux-gnu"
BOARDS = ("cortex-a72", "neoverse-n1")
TOOLS = ("llvm-mca-19", "llvm-mca")
NEWER = "on Debian: apt-get install llvm-19"
REMEDY = f"static estimates need llvm-mca; {NEWER}"
LINES = (
    ("znver5", "znver4", "znver3", "znver2", "znver1"),
    ("diamondrapids", "graniterapids-d", "graniterapids", "emeraldrapids", "sapphirerapids",
     "icelake-server", "cascadelake", "skylake-avx512", "broadwell", "haswell"),
    ("pantherlake", "lunarlake", "arrowlake-s", "arrowlake", "meteorlake", "raptorlake",
     "alderlake", "skylake", "haswell"),
    ("neoverse-v3", "neoverse-v2", "neoverse-v1", "neoverse-n1"),
    ("neoverse-n3", "neoverse-n2", "neoverse-n1"),
    ("cortex-a78", "cortex-a77", "cortex-a76", "cortex-a72"),
)  # fmt: skip
"""CPUs by LLVM's names, each followed by the one most like it that an older llvm-mca knows."""
ITERATIONS = 200
COUNTING = {
    ("xnor", "words", 64): (r"\bvpopcntd\s.*%zmm", 512),
    ("lookup", "bytes", 32): (r"\bvpshufb\s.*%ymm", 256),
    ("xnor", "bytes", 32): (r"\bvpshufb\s.*%ymm", 128),
    ("xnor", "bytes", 16): (r"\bcnt\s+v\d+\.16b", 128),
}
"""Micro-kernel, its form and vector bytes -> its counting instruction, binary products of each."""
Wanted: TypeAlias = tuple[str, str, Sequence[str], tuple[str, str, int]]
_MARK = "# for "


class EstimateMissing(Exception):
    """No estimate here; the text says why, and what to do."""


@dataclass(frozen=True)
class Estimate:
    """The counting loop of one micro-kernel on one CPU.

    Attributes:
        cpu: LLVM's name.
        model: the CPU whose model stands for it: an older one if llvm-mca does not know it.
        kernel: micro-kernel that the engine would choose there.
        macs: binary products in a turn of the loop.
        cycles: estimated cycles of a turn.
        tool: what estimated it, with its version.
    """

    cpu: str
    model: str
    kernel: str
    macs: int
    cycles: float
    tool: str

    @property
    def per_word(self) -> float:
        """Cycles for 64 binary products."""
        return 64 * self.cycles / self.macs


def tool() -> str | None:
    """Path of llvm-mca, None if there is none."""
    return next((place for name in TOOLS if (place := shutil.which(name))), None)


def estimates(kernel: str) -> list[Estimate]:
    """This CPU with ``kernel``, and the boards of :data:`BOARDS` with theirs.

    Raises:
        EstimateMissing: no llvm-mca, or one that knows neither this CPU nor one of its line.
    """
    mca = tool()
    if mca is None:
        raise EstimateMissing(REMEDY)
    host, triple = llvm.get_host_cpu_name(), llvm.get_process_triple()
    form = features.host_form()
    here = (kernel, "bytes", 32) if kernel == "lookup" else (kernel, form.count, form.width)
    wanted: list[Wanted] = [("xnor", ARM, BOARDS, ("xnor", "bytes", 16))]
    if here in COUNTING and host not in BOARDS:
        wanted.insert(0, (kernel, triple, (host,), here))
    with ThreadPoolExecutor() as pool:
        texts = list(pool.map(lambda each: _assemblies(*each[:3]), wanted))
    found = []
    for (name, target, _, key), sections in zip(wanted, texts, strict=True):
        for cpu, text in sections.items():
            loop, macs = counting_loop(text, key)
            model, cycles = _nearest(mca, target, cpu, loop)
            found.append(Estimate(cpu, model, name, macs, cycles, _version(mca)))
    return found


def table(found: Sequence[Estimate], binary_macs: int, measured: float | None) -> Table:
    """Table for the terminal.

    Args:
        found: the estimates.
        binary_macs: of one image of the model.
        measured: binary products a cycle that this CPU reached in the model's best step.
    """
    title = f"static estimate of the counting loop ({found[0].tool}); a limit, no latency"
    shown = Table(title=title, title_justify="left")
    shown.add_column("CPU")
    shown.add_column("micro-kernel")
    shown.add_column("cycles for 64 binary MACs", justify="right")
    shown.add_column("this model's, thousand cycles", justify="right")
    for each in found:
        thousands = each.per_word * binary_macs / 64e3
        name = each.cpu if each.cpu == each.model else f"{each.cpu} (as {each.model})"
        shown.add_row(name, each.kernel, f"{each.per_word:.2f}", f"{thousands:,.1f}")
    if measured:
        shown.add_row("this CPU, measured", "best step", f"{64 / measured:.2f}", "")
        if found[0].cpu == llvm.get_host_cpu_name() and 64 / measured < found[0].per_word:
            shown.caption = f"this CPU is faster than LLVM's model of {found[0].model}"
    unknown = [each.cpu for each in found if each.cpu != each.model]
    if unknown:
        shown.caption = f"{found[0].tool} does not know {', '.join(unknown)}; {NEWER}"
    return shown


def to_json(found: Sequence[Estimate]) -> list[dict[str, object]]:
    """As in bench.json."""
    return [{**asdict(each), "cycles_per_64_macs": round(each.per_word, 3)} for each in found]


def counting_loop(text: str, key: tuple[str, str, int]) -> tuple[str, int]:
    """The innermost counting loop of an assembly, and how many products a turn of it has.

    Raises:
        EstimateMissing: no block that jumps to itself counts anything.
    """
    pattern, products = COUNTING[key]
    best, most = "", 0
    for block in re.split(r"\n(?=\.L\w+:)", text):
        label, _, body = block.partition(":")
        lines = [line.strip() for line in body.splitlines()]
        code = [line for line in lines if line and line[0] not in ".#/"]
        jumps = [i for i, line in enumerate(code) if re.search(rf"\s{re.escape(label)}$", line)]
        if not jumps:
            continue
        loop = "\n".join(code[: jumps[-1] + 1])
        count = len(re.findall(pattern, loop))
        if count > most:
            best, most = loop, count
    if not most:
        raise EstimateMissing(f"the assembly of {key[0]} has no loop with {pattern}")
    return best, most * products


def _nearest(mca: str, triple: str, cpu: str, loop: str) -> tuple[str, float]:
    """The first CPU from ``cpu`` down its line that ``mca`` knows, and the loop's cycles there."""
    line = next((line[line.index(cpu) :] for line in LINES if cpu in line), (cpu,))
    for each in line:
        cycles = _cycles(mca, triple, each, loop)
        if cycles is not None:
            return each, cycles
    raise EstimateMissing(f"{_version(mca)} does not know {cpu}; a newer one does: {NEWER}")


def _cycles(mca: str, triple: str, cpu: str, loop: str) -> float | None:
    """Cycles of a turn; None for a CPU that ``mca`` does not know, where it would take any."""
    command = [mca, f"-mtriple={triple}", f"-mcpu={cpu}", f"-iterations={ITERATIONS}"]
    done = subprocess.run(command, input=loop, capture_output=True, text=True)
    if "is not a recognized processor" in done.stderr:
        return None
    cycles = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    if done.returncode or cycles is None:
        reason = (done.stderr or "no result").strip()[:200]
        raise EstimateMissing(f"{Path(mca).name}: {reason}; a newer one: {NEWER}")
    return int(cycles[1]) / ITERATIONS


def _version(mca: str) -> str:
    text = subprocess.run([mca, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"version (\S+)", text)
    return f"llvm-mca {found[1] if found else 'of unknown version'}"


def _assemblies(kernel: str, triple: str, cpus: Sequence[str]) -> dict[str, str]:
    """Assembly of ``kernel`` by CPU, kept beside the compiled code: that folder has its hash."""
    folder = cache_folder()
    kept = None if folder is None else folder / f"static-{kernel}-{'-'.join(cpus)}.s"
    if kept is not None and kept.is_file():
        return _sections(kept.read_text())
    environment = {**os.environ, "NUMBA_OPT": "0"}
    environment |= {"NUMBA_LOOP_VECTORIZE": "0", "NUMBA_SLP_VECTORIZE": "0"}
    if triple == ARM:  # NEON needs no name; the form for a CPU without AVX is 16 bytes wide
        environment |= {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    command = [
        sys.executable,
        "-m",
        "frostbit.pipeline.bench.static_estimate",
        kernel,
        triple,
        *cpus,
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise EstimateMissing(f"no assembly of {kernel}: {done.stderr.strip()[-200:]}")
    if kept is not None:
        from frostbit.pipeline.run.folder import write_bytes

        write_bytes(kept, done.stdout.encode())
    return _sections(done.stdout)


def _sections(text: str) -> dict[str, str]:
    parts = re.split(rf"^{_MARK}(\S+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def assembly(ir: str, triple: str, cpu: str) -> str:
    """What LLVM makes of Numba's ``ir`` for another CPU, at its highest level."""
    machine = llvm.Target.from_triple(triple).create_target_machine(
        cpu=cpu, features=_own_features(cpu), opt=3
    )
    text = re.sub(r'target (triple|datalayout) = ".*"\n', "", ir)
    text = re.sub(r'"(target-cpu|target-features|tune-cpu|probe-stack)"="[^"]*"', "", text)
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = triple, str(machine.target_data)
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = tuning.slp_vectorization = True
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    return str(machine.emit_assembly(module))


def _own_features(cpu: str) -> str:
    """Features of this host if it is meant: a virtual machine may lack some of its CPU's."""
    return str(llvm.get_host_cpu_features().flatten()) if cpu == llvm.get_host_cpu_name() else ""


def _main(kernel: str, triple: str, cpus: Sequence[str]) -> None:
    import numba
    from numba import types

    from frostbit.kernels.micro import lookup, xnor
    from frostbit.kernels.micro.operands import Parts, Taps, Tile

    xnor_tile, lookup_two = xnor.xnor_tile, lookup.lookup_two

    def count(source, pixels, offsets, words, weights, counts):  # type: ignore[no-untyped-def]
        xnor_tile(Tile(source, pixels), Taps(offsets, words, weights), counts)

    def look_up(tables, indices, stride, rows, step, triples, counts, apart):  # type: ignore[no-untyped-def]
        pairs, weights, out = Parts(indices, stride), Parts(rows, step), Parts(counts, apart)
        lookup_two(tables, pairs, weights, triples, out)

    function, arguments = (look_up, 8) if kernel == "lookup" else (count, 6)
    options: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    compiled = numba.njit(**options)(function)
    compiled.compile((types.int64,) * arguments)
    ir = str(compiled.inspect_llvm(compiled.signatures[0]))
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    for cpu in cpus:
        print(f"{_MARK}{cpu}\n{assembly(ir, triple, cpu)}")


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], sys.argv[3:])
