"""Many engines at once, and one for a very long time."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frostbit.kernels.engine import Engine
from tests import ROOT, nets

THREADS, PROCESSES = 8, 4


@dataclass(frozen=True)
class Together:
    """Result of :func:`together`: inferences by all threads, and different logits among them."""

    threads: int
    processes: int
    seconds: float
    inferences: int
    answers: int


def worker(seconds: float) -> dict[str, object]:
    """In one process: threads that share one engine and one each of their own."""
    program = nets.every_op()
    images = nets.images(program, 4)
    shared = Engine(program)
    seen: set[str] = set()
    counts = [0] * THREADS
    end = time.monotonic() + seconds

    def run(index: int) -> None:
        own = shared if index % 2 else Engine(program)
        while time.monotonic() < end:
            seen.add(hashlib.sha256(own.run(images).tobytes()).hexdigest())
            counts[index] += len(images)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 120)
    stuck = sum(thread.is_alive() for thread in threads)
    return {"inferences": sum(counts), "answers": sorted(seen), "stuck": stuck}


def together(cache: Path, seconds: float) -> Together:
    """Processes with an empty common cache folder: all compile first, at the same time."""
    environment = {**os.environ, "FROSTBIT_CACHE": str(cache)}
    script = (
        "import json; from tests.reliability import engines; "
        f"print(json.dumps(engines.worker({seconds})))"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE
        )
        for _ in range(PROCESSES)
    ]
    try:
        found = [json.loads(child.communicate(timeout=seconds + 300)[0]) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert not any(each["stuck"] for each in found)
    answers = {answer for each in found for answer in each["answers"]}
    count = sum(each["inferences"] for each in found)
    return Together(THREADS, PROCESSES, seconds, count, len(answers))


@dataclass(frozen=True)
class Long:
    """Result of :func:`long_run`.

    Attributes:
        inferences: how many, one image each.
        leak_mb: growth of the resident set from the first tenth to the end, in MB.
        slope_mb: slope of a line through the resident set at each tenth, in MB per million.
        last_over_first: median time of the last tenth over that of the first; a machine whose
            clock changes shows here.
        old_over_fresh: median time of the last tenth over that of a fresh engine, in turns.
    """

    inferences: int
    leak_mb: float
    slope_mb: float
    last_over_first: float
    old_over_fresh: float


def resident() -> float:
    """Resident set of this process in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def long_run(count: int) -> Long:
    """One engine, ``count`` inferences of single images."""
    program = nets.every_op()
    images = nets.images(program, 16)
    old, fresh = Engine(program), Engine(program)
    tenth = count // 10
    times = np.full((3, tenth), 1.0)  # touched now, so that it does not look like a leak later

    def timed(row: int, engine: Engine, i: int) -> None:
        start = time.perf_counter_ns()
        engine.run(images[i % 16][None])
        times[row, i] = time.perf_counter_ns() - start

    for i in range(tenth):
        timed(0, old, i)
    sizes = [resident()]
    for _ in range(8):
        for i in range(tenth):
            old.run(images[i % 16][None])
        sizes.append(resident())
    for i in range(tenth):
        timed(1, old, i)
        timed(2, fresh, i)
    sizes.append(resident())
    leak = sizes[-1] - sizes[0]
    slope = float(np.polyfit(np.arange(len(sizes)) * tenth / 1e6, sizes, 1)[0])
    first, last, beside = np.median(times, axis=1)
    return Long(count, leak, slope, float(last / first), float(last / beside))


FORK = """
import os
from frostbit.kernels.engine import Engine
from tests import nets
program = nets.every_op()
images = nets.images(program, 3)
for threads in (1, 2):
    engine = Engine(program, threads=threads)
    expected = engine.run(images)
    child = os.fork()
    if child == 0:
        os._exit(0 if (engine.run(images) == expected).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
print("equal")
"""


def after_fork() -> str:
    """``equal`` if a forked child, which inherits a used engine, computes the same."""
    done = subprocess.run(
        [sys.executable, "-c", FORK], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


LATE = """
import atexit
import threading
from frostbit.kernels.engine import Engine
from tests import nets
program = nets.every_op()
images = nets.images(program, 9)
fresh, used = Engine(program, threads=2), Engine(program, threads=2)
expected = used.run(images)
def late():
    for engine in (fresh, used, Engine(program, threads=2)):
        assert (engine.run(images) == expected).all()
    print("equal")
def outlive():
    threading.main_thread().join()
    late()
atexit.register(late)
threading.Thread(target=outlive).start()
"""


def after_main() -> str:
    """``equal equal`` if a thread that outlives the main one and an exit handler can compute."""
    done = subprocess.run(
        [sys.executable, "-c", LATE], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    return " ".join(done.stdout.split()) + done.stderr
