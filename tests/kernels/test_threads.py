"""One image on several threads: the same bits, and nothing that can hang."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostbit.kernels.engine import Engine, load
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.file import dumps
from frostbit.kernels.ir.program import INPUT, Program, Window
from frostbit.kernels.machine import board as b
from frostbit.kernels.machine import cpu, threads
from frostbit.kernels.machine.settings import SettingError
from frostbit.kernels.plan import shares
from tests import ROOT
from tests.kernels.programs import Builder, exact_programs, programs, random_images
from tests.kernels.split import split

SAME = Window((3, 3), pads=(1, 1, 1, 1))
COUNTS = (1, 2, 3, 4, 7)


def wide_net(pad_value: int = 1) -> Program:
    """Small maps of many channels, odd numbers of pixels and of blocks: cut by blocks, too."""
    b = Builder((15, 13, 3), seed=3)
    x = b.conv(INPUT, 160, Window((3, 3), (2, 2), (1, 1, 1, 1)))
    s = b.binary_conv(b.sign(x), 352, SAME, pad_value=pad_value, affine=False)
    s = b.binary_conv(s, 256, Window((1, 1)), affine=False)
    y = b.binary_conv(s, 224, SAME, pad_value=pad_value)
    z = b.add(b.binary_conv(b.sign(y), 224, Window((5, 5), pads=(2, 2, 2, 2))), y)
    return b.finish(b.sign(b.max_pool(z, Window((3, 3), (2, 2), (1, 1, 1, 1)))), 70)


def assert_same(engine: Engine, images: np.ndarray, want: np.ndarray) -> None:
    """Check a batch and single images, twice: what was left in memory must not matter."""
    for _ in range(2):
        np.testing.assert_array_equal(engine.run(images), want)
        for image, logits in zip(images, want, strict=True):
            np.testing.assert_array_equal(engine.run(image[None])[0], logits)


@settings(deadline=None, max_examples=80)
@given(
    program=exact_programs(),
    kernel=st.sampled_from(cpu.available()),
    count=st.sampled_from(COUNTS),
    units=st.sampled_from([1, 3]),
)
def test_random_programs_equal_the_reference(
    program: Program, kernel: str, count: int, units: int
) -> None:
    images = random_images(program, 3)
    assert_same(split(program, count, kernel, units), images, reference.run(program, images))


@settings(deadline=None, max_examples=60)
@given(
    program=programs(foreign=True),
    kernel=st.sampled_from(cpu.available()),
    count=st.sampled_from(COUNTS[1:]),
)
def test_imported_programs_equal_one_thread(program: Program, kernel: str, count: int) -> None:
    images = random_images(program, 2)
    want = Engine(program, kernel=kernel).run(images)
    assert_same(split(program, count, kernel), images, want)


@pytest.mark.parametrize("kernel", cpu.available())
@pytest.mark.parametrize("count", COUNTS)
def test_wide_layers_are_cut_by_blocks(kernel: str, count: int) -> None:
    program = wide_net(count % 2)
    images = random_images(program, 2)
    engine = split(program, count, kernel)
    firsts = set(engine._shares.chunks[:, b.CHUNK_FIRST_BLOCK].tolist())
    assert (firsts == {0}) == (count == 1)
    assert_same(engine, images, reference.run(program, images))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("images", [1, 2, 3, 8, 9, 40])
def test_batches_of_any_size(count: int, images: int) -> None:
    program = wide_net()
    pixels = random_images(program, images)
    np.testing.assert_array_equal(split(program, count).run(pixels), Engine(program).run(pixels))


def test_chunks_cover_every_step_once() -> None:
    table: list[list[int]] = Engine(wide_net())._plan.table.tolist()
    for count in range(1, 9):
        found = shares.share(table, count)
        assert found.units[-1] == len(found.chunks)
        assert found.phases[-1] == len(found.units) - 1
        covered = np.zeros(len(table))
        for row, begin, end, first, stop in found.chunks.tolist():
            whole = shares.whole(table[row])
            covered[row] += (end - begin) * (stop - first) / (whole[1] * whole[3])
        np.testing.assert_allclose(covered, 1.0)


# ---------------------------------------------------------------- nothing waits in vain


def test_threads_that_never_come_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    program = wide_net()
    images = random_images(program, 3)
    engine = split(program, 4)
    monkeypatch.setattr(engine._team, "wake", lambda count: None)
    assert_same(engine, images, Engine(program).run(images))


def test_without_futexes_threads_sleep_in_python() -> None:
    program = wide_net()
    images = random_images(program, 3)
    engine = split(program, 3)
    engine._board[b.SLEEPS] = 0
    want = Engine(program).run(images)
    for pause in (0.0, 0.0, 0.05, 0.0, 0.05):
        assert_same(engine, images, want)
        time.sleep(pause)
    engine._team.leave()
    assert not any(helper.thread.is_alive() for helper in engine._team._helpers)


def test_waiting_threads_use_no_cpu() -> None:
    program = wide_net()
    image = random_images(program, 1)
    engine = split(program, 3)
    engine.run(image)
    helpers = [helper.thread.ident or 0 for helper in engine._team._helpers]
    clocks = [time.pthread_getcpuclockid(ident) for ident in helpers]
    for _ in range(20):
        engine.run(image)
        before = [time.clock_gettime(clock) for clock in clocks]
        time.sleep(0.02)
        after = [time.clock_gettime(clock) for clock in clocks]
        assert max(np.subtract(after, before)) < 1e-3


def test_engines_in_several_python_threads() -> None:
    program = wide_net()
    images = random_images(program, 4)
    want = Engine(program).run(images)
    shared = split(program, 3)
    engines = [shared, split(program, 2), shared, split(program, 2)]
    wrong: list[int] = []

    def work(engine: Engine) -> None:
        for turn in range(30):
            got = engine.run(images[turn % 4 :])
            wrong.extend([turn] * (not np.array_equal(got, want[turn % 4 :])))

    workers = [threading.Thread(target=work, args=(engine,)) for engine in engines]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert not any(worker.is_alive() for worker in workers)
    assert wrong == []


def test_an_engine_deleted_while_its_threads_wait_or_sleep() -> None:
    program = wide_net()
    image = random_images(program, 1)
    before = threading.active_count()
    for pause in (0.0, 0.02):
        for _ in range(5):
            engine = split(program, 3)
            engine.run(image)
            time.sleep(pause)
            del engine
    end = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() == before


PROCESS = """
import atexit, os, threading
from frostbit.kernels.engine import Engine
from tests.kernels.programs import random_images
from tests.kernels.split import split
from tests.kernels.test_threads import wide_net
program = wide_net()
images = random_images(program, 3)
want = Engine(program, threads=1).run(images)
def right(engine):
    return all((engine.run(images[:n]) == want[:n]).all() for n in (1, 3, 1))
engine = split(program, 3)
assert right(engine)
for _ in range(5):  # with threads that look for work, and others that sleep
    child = os.fork()
    if child == 0:
        os._exit(0 if right(engine) and right(split(program, 2)) else 1)
    assert os.waitpid(child, 0)[1] == 0
def late():
    assert right(engine) and right(split(program, 3))
    print("equal", flush=True)
def outlive():
    threading.main_thread().join()
    late()
atexit.register(late)
threading.Thread(target=outlive).start()
print("equal", flush=True)
"""


def test_fork_atexit_and_threads_that_outlive_main() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROCESS], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["equal"] * 3, "")


# ---------------------------------------------------------------- how many


@pytest.mark.parametrize("bad", [0, -1, 1000, True, "many", "4", 2.0, "", [2]])
def test_bad_numbers_are_refused_in_one_line(bad: Any) -> None:
    program = wide_net()
    for make in (lambda: Engine(program, threads=bad), lambda: load(dumps(program), threads=bad)):
        with pytest.raises(ValueError, match=r"^threads must be 1 to 256 or 'auto', not .*$"):
            make()


@pytest.mark.parametrize("bad", ["0", "-1", "1000", "many", "2.5", "1" * 30, "²"])
def test_bad_numbers_of_the_environment_name_it(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(threads.VARIABLE, bad)
    with pytest.raises(SettingError, match=r"^FROSTBIT_ENGINE_THREADS must be 1 to 256 or"):
        Engine(wide_net())


def test_the_argument_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    program = wide_net()
    assert Engine(program).threads == 1
    monkeypatch.setenv(threads.VARIABLE, "3")
    assert [Engine(program).threads, Engine(program, threads=2).threads] == [3, 2]
    monkeypatch.setattr(threads, "available_cores", lambda: 5)
    assert Engine(program, threads="auto").threads == 5
    monkeypatch.setenv(threads.VARIABLE, "auto")
    assert Engine(program).threads == 5


def test_a_network_too_small_to_gain_stays_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Builder((6, 6, 1))
    small = builder.finish(builder.sign(builder.conv(INPUT, 8, SAME)), 10)
    monkeypatch.setattr(cpu, "available_cores", lambda: 4)
    assert Engine(small, threads=4)._shares.threads == 1
    assert Engine(wide_net(), threads=4, kernel="portable")._shares.threads == 4


def test_one_image_is_shared_by_no_more_threads_than_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu, "available_cores", lambda: 1)
    assert Engine(wide_net(), threads=4)._shares.threads == 1
