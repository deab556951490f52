"""The engine against the reference: every bit and every logit, on random Programs."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostbit.kernels import engine as engine_module
from frostbit.kernels.engine import Engine, load
from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir import file as model_file
from frostbit.kernels.ir.program import INPUT, OP_TYPES, Dense, FormatError, Op, Program, Window
from frostbit.kernels.machine import cpu
from frostbit.kernels.plan import plan
from tests.kernels.programs import Builder, exact_programs, random_images

SAME = Window((3, 3), pads=(1, 1, 1, 1))


def make(program: Program, kernel: str = "xnor", *, threads: int = 1, keep: bool = False) -> Engine:
    """An engine with a given micro-kernel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cpu.VARIABLE, kernel)
        engine = Engine(program, threads=threads, keep=keep)
    assert engine.kernel == kernel
    return engine


def assert_equal(program: Program, kernel: str, count: int = 5) -> None:
    """Check logits and every bits value of ``program`` against the reference."""
    images = random_images(program, count)
    want = reference.trace(program, images)
    logits = want[program.ops[-1].name][:, 0, 0]
    np.testing.assert_array_equal(make(program, kernel).run(images), logits)
    engine = make(program, kernel, keep=True)
    np.testing.assert_array_equal(engine.run(images), logits)
    signs = engine.signs(images)
    expected = {n: bits.pack(v) for n, v in want.items() if v.dtype == np.int8}
    assert signs.keys() == expected.keys()
    for name, words in expected.items():
        np.testing.assert_array_equal(signs[name], words, err_msg=name)


@pytest.mark.parametrize("kernel", cpu.KERNELS)
@settings(deadline=None, max_examples=120)
@given(program=exact_programs(), count=st.sampled_from([1, 5]))
def test_random_programs_equal_the_reference(kernel: str, program: Program, count: int) -> None:
    assert_equal(program, kernel, count)


def edge_net(pad_value: int = 1) -> Program:
    """A small network of the kind we ship: residual blocks, a downsample, threshold layers."""
    b = Builder((13, 11, 3), seed=7)
    x = b.conv(INPUT, 32, Window((3, 3), (2, 2), (1, 1, 1, 1)))
    x = b.add(b.binary_conv(b.sign(x), 32, SAME, pad_value=pad_value), x)
    short = b.repeat(b.avg_pool(x, Window((2, 2), (2, 2), (0, 0, 1, 0))), 2)
    down = Window((3, 3), (2, 2), (1, 1, 1, 1))
    x = b.add(short, b.binary_conv(b.sign(x), 64, down, pad_value=pad_value))
    s = b.sign(x)
    y = b.binary_conv(s, 40, SAME, pad_value=pad_value, affine=False)
    y = b.binary_conv(b.max_pool(y, Window((2, 2), (1, 1))), 64, SAME, affine=False)
    z = b.add(b.to_float(s), b.binary_conv(s, 64, SAME, pad_value=pad_value))
    b.global_sum(y)
    return b.finish(b.sign(z), 10)


@pytest.mark.parametrize("kernel", cpu.KERNELS)
@pytest.mark.parametrize("pad_value", [0, 1])
def test_a_network_of_ours(kernel: str, pad_value: int) -> None:
    assert_equal(edge_net(pad_value), kernel)


@pytest.mark.parametrize("kernel", cpu.KERNELS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_all_match_and_all_mismatch(kernel: str, sign: int) -> None:
    """The largest counts: 5 x 5 x 700 taps, all equal or all different."""
    b = Builder((5, 5, 1))
    x = b.conv(INPUT, 700, Window((1, 1)))
    b.ops[-1].weights[...] = 0.0  # type: ignore[attr-defined]
    b.ops[-1].add[...] = 1.0  # type: ignore[attr-defined]
    whole = Window((5, 5), pads=(2, 2, 2, 2))
    words = bits.pack(np.full((33, 5, 5, 700), sign))
    for pad_value in (0, 1):
        y = b.binary_conv(b.sign(x), 33, whole, pad_value=pad_value, words=words)
        b.ops[-1].epilogue.mul[...] = 1.0  # type: ignore[attr-defined]
        b.ops[-1].epilogue.add[...] = 0.0  # type: ignore[attr-defined]
    program = b.finish(y)
    middle = reference.trace(program, random_images(program, 1))[y][0, 2, 2]
    assert (middle == sign * 17500).all()
    assert_equal(program, kernel, 1)


@pytest.mark.parametrize("threads", [1, 3])
def test_batch_and_threads_change_nothing(threads: int) -> None:
    program = edge_net()
    images = random_images(program, 7)
    one = make(program)
    single = np.concatenate([one.run(image[None]) for image in images])
    np.testing.assert_array_equal(make(program, threads=threads).run(images), single)
    assert make(program, threads=threads).peak_bytes == threads * one.peak_bytes


def test_values_that_do_not_live_together_share_memory() -> None:
    b = Builder((16, 16, 1))
    x = b.conv(INPUT, 64, SAME)
    for _ in range(6):
        x = b.add(b.binary_conv(b.sign(x), 64, SAME), x)
    program = b.finish(x)
    kept, shared = make(program, keep=True).peak_bytes, make(program).peak_bytes
    assert 2 * 16 * 16 * 64 * 4 <= shared < kept / 2


def test_inputs_of_any_memory_order() -> None:
    program = edge_net()
    images = random_images(program, 3)
    want = make(program).run(images)
    np.testing.assert_array_equal(make(program).run(np.asfortranarray(images)), want)
    images.flags.writeable = False
    np.testing.assert_array_equal(make(program).run(images), want)


def test_shared_by_python_threads() -> None:
    program = edge_net()
    engine = make(program)
    images = random_images(program, 6)
    want = engine.run(images)
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(50):
            got = engine.run(images[index : index + 1])
            if not np.array_equal(got, want[index : index + 1]):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_every_op_has_a_rule() -> None:
    missing = [name for name, cls in OP_TYPES.items() if cls not in plan.RULES]
    assert missing == []


@dataclass(frozen=True, eq=False)
class Mystery(Op):
    """An op nobody knows."""


def test_an_unknown_op_is_named() -> None:
    program = Program((2, 2, 1), (Mystery("what", (INPUT,)),), "", ("a",))
    with pytest.raises(FormatError, match=r"'what'.*Mystery"):
        Engine(program)


def test_a_pooling_window_inside_the_padding_is_refused() -> None:
    b = Builder((3, 3, 1))
    x = b.conv(INPUT, 4, Window((1, 1)))
    x = b.max_pool(x, Window((2, 2), (1, 1), (1, 1, 1, 1), (4, 4)))
    with pytest.raises(FormatError, match="wholly in the padding"):
        Engine(b.finish(x))


def test_too_much_memory_is_refused() -> None:
    b = Builder((1 << 13, 1 << 13, 1))
    x = b.conv(INPUT, 1, Window((1, 1)))
    with pytest.raises(FormatError, match="more than 2 GiB"):
        Engine(b.finish(x))


@pytest.mark.parametrize("shape", [(1 << 14, 1 << 14, 1), (1 << 15, 1, 1)])
def test_tables_beyond_reason_are_refused(shape: tuple[int, int, int]) -> None:
    """A small file can describe huge maps, or huge kernels on long maps."""
    b = Builder(shape)
    x = b.sign(b.conv(INPUT, 1, Window((1, 1))))
    if shape[1] == 1:
        kernel = Window((1 << 14, 1), pads=(1, 0, 0, 0))
        x = b.binary_conv(x, 1, kernel, pad_value=0)
    with pytest.raises(FormatError, match="too large for the engine"):
        Engine(b.finish(x))


def test_load(tmp_path: Path) -> None:
    program = edge_net()
    path = tmp_path / "model.bnn"
    model_file.save_program(program, path)
    engine = load(path)
    images = random_images(program, 2)
    np.testing.assert_array_equal(engine.run(images), make(program).run(images))
    assert engine.input_shape == (13, 11, 3)
    assert engine.classes == program.classes
    assert isinstance(engine.program.ops[-1], Dense)


class Place(os.PathLike[str]):
    """A path-like that is neither text nor a ``Path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


class BytesPlace(os.PathLike[bytes]):
    """A path-like of bytes, as ``os.scandir(b".")`` gives."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> bytes:
        return os.fsencode(self.path)


class Drop:
    """A stream that gives a byte at a time, as a pipe may."""

    def __init__(self, data: bytes) -> None:
        self.rest = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self.rest.read(min(size, 1))


SOURCES: dict[str, Callable[[Path], Any]] = {
    "text": str,
    "path-like": Place,
    "path-like of bytes": BytesPlace,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "file": lambda path: path.open("rb"),
    "bytes in memory": lambda path: io.BytesIO(path.read_bytes()),
    "slow stream": lambda path: Drop(path.read_bytes()),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_load_takes_paths_bytes_and_files(kind: str, tmp_path: Path) -> None:
    program = edge_net()
    model_file.save_program(program, tmp_path / "model.bnn")
    source = SOURCES[kind](tmp_path / "model.bnn")
    with source if isinstance(source, io.IOBase) else contextlib.nullcontext():
        assert model_file.dumps(load(source).program) == model_file.dumps(program)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (b"model.bnn", FormatError, "the bytes given: the file is "),
        (io.BytesIO(b"x" * 100), FormatError, "the file given: the file is truncated"),
        (io.StringIO("text"), TypeError, "open it in binary mode"),
        (3, TypeError, "not as int"),
        (None, TypeError, "not as NoneType"),
    ],
)
def test_load_says_what_it_takes(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load(source)


@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_a_copy_computes_the_same(clone: Callable[[Engine], Engine]) -> None:
    program = edge_net()
    images = random_images(program, 5)
    engine = Engine(program, threads=2, keep=True, kernel="portable", narrow=False)
    other = clone(engine)
    assert other is not engine
    assert (other.kernel, other.peak_bytes) == ("portable", engine.peak_bytes)
    np.testing.assert_array_equal(other.run(images), engine.run(images))
    assert other.signs(images).keys() == engine.signs(images).keys()


def test_a_memory_map_is_an_array_and_other_subclasses_are_refused(tmp_path: Path) -> None:
    program = edge_net()
    engine = make(program)
    images = random_images(program, 4)
    images.tofile(tmp_path / "images")
    mapped = np.memmap(tmp_path / "images", np.uint8, "r", shape=images.shape)
    np.testing.assert_array_equal(engine.run(mapped), engine.run(images))
    masked = np.ma.masked_array(images, images > 200)
    for bad in (masked, images.view(np.recarray)):
        for call in (engine.run, lambda x: engine.time_steps(0, 1, x)):
            with pytest.raises(ValueError, match=type(bad).__name__):
                call(bad)
        with pytest.raises(ValueError, match=type(bad).__name__):
            reference.run(program, bad)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("seconds", [1e-9, 1e-4])
def test_slices_change_nothing(
    threads: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch in many compiled calls, of images in any memory order, and in one call."""
    program = edge_net()
    images = random_images(program, 50)
    want = reference.run(program, images)
    monkeypatch.setattr("frostbit.kernels.engine.SLICE_SECONDS", seconds)
    engine = make(program, threads=threads)
    frozen = images.copy()
    frozen.flags.writeable = False
    for each in (images, np.asfortranarray(images), frozen, images[::-1][::-1]):
        np.testing.assert_array_equal(engine.run(each), want)
    steps = len(engine.steps)
    assert engine.time_steps(0, steps, images) > 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_in_a_thread_costs_its_help_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    program = edge_net()
    images = random_images(program, 40)
    want = make(program).run(images)
    engine = make(program, threads=3)
    compiled, main = engine_module.run_plan, threading.get_ident()
    failed, before = threading.Event(), threading.active_count()

    def broken(*arguments: Any) -> None:
        if threading.get_ident() != main:
            failed.set()
            raise MemoryError("in a thread")
        compiled(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "run_plan", broken)
        np.testing.assert_array_equal(engine.run(images), want)
        assert failed.wait(60)
    end = time.monotonic() + 60
    while threading.active_count() < before + 2 and time.monotonic() < end:
        np.testing.assert_array_equal(engine.run(images), want)  # threads start again
    assert threading.active_count() >= before + 2


def test_where_no_thread_can_start_the_caller_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    program = edge_net()
    images = random_images(program, 9)
    monkeypatch.setattr(threading.Thread, "start", refused)
    np.testing.assert_array_equal(make(program, threads=3).run(images), make(program).run(images))


def test_threads_end_with_their_engine() -> None:
    program = edge_net()
    before = threading.active_count()
    engine = make(program, threads=4)
    engine.run(random_images(program, 8))
    assert threading.active_count() == before + 3
    del engine
    end = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_a_signal_handler_may_run_the_engine_that_it_interrupts() -> None:
    """Here a handler's place is taken by the call of a slice: same thread, lock held."""
    program = edge_net()
    images = random_images(program, 30)
    engine = make(program, threads=2)
    want = engine.run(images)
    inner: list[Any] = []
    compute = engine._call_timed

    def nested(*arguments: Any) -> None:
        if not inner and threading.current_thread() is threading.main_thread():
            inner.append(None)
            inner[0] = engine.run(images)
        compute(*arguments)

    engine._call_timed = nested  # type: ignore[method-assign]
    np.testing.assert_array_equal(engine.run(images), want)
    np.testing.assert_array_equal(inner[0], want)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.run(np.zeros((1, 13, 11, 3), np.float32)), "uint8"),
        (lambda e: e.run(np.zeros((1, 11, 13, 3), np.uint8)), "shape"),
        (lambda e: e.signs(np.zeros((1, 13, 11, 3), np.uint8)), "keep=True"),
    ],
)
def test_bad_calls(call: Callable[[Engine], object], message: str) -> None:
    engine = make(edge_net())
    with pytest.raises(ValueError, match=message):
        call(engine)


def test_unknown_kernel_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu.VARIABLE, "magic")
    with pytest.raises(ValueError, match=r"FROSTBIT_KERNEL='magic' is unknown: use .*portable"):
        Engine(edge_net())
