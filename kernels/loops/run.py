"""What Python calls: one thread's part in jobs (:mod:`frostbit.kernels.machine.board`)."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# reason: these bodies are typed by Numba, from int64 addresses alone

from __future__ import annotations

from frostbit.kernels import op_table as t
from frostbit.kernels.loops.steps import step
from frostbit.kernels.machine import board as b
from frostbit.kernels.machine.jit import entry, inlined, inner
from frostbit.kernels.micro.atomics import (
    add_to_word,
    pause,
    read_word,
    sleep_until_changed,
    swap_word,
    wake_all,
    write_word,
    yield_core,
)
from frostbit.kernels.micro.vector import copy, field, store_u64

CALLER, RING = 0, -1
"""What may stand for the number of a thread: the calling one; none, to wake all others."""
PAUSES = 64
"""Looks at a word, with a pause between, before a thread that waits lets others have its core."""
YIELDS = 256
"""Looks with the core offered to others in between, before it sleeps; each takes 0.3 us or more."""
IDLE_TURNS = 2048
"""The same between jobs, where every eighth look offers the core: 0.1 to 0.4 ms."""
_ROW_BYTES = 8 * t.COLUMNS


@inner
def wait_until(board, target):
    """Wait until ``target`` units were done, ever."""
    done, waiting = board + 8 * b.DONE, board + 8 * b.WAITING
    for _ in range(PAUSES):
        if read_word(done) >= target:
            return
        pause()
    looks = 0
    while looks < YIELDS or field(board, b.SLEEPS) == 0:
        if read_word(done) >= target:
            return
        yield_core()
        looks += 1
    add_to_word(waiting, 1)
    seen = read_word(done)
    while seen < target:
        sleep_until_changed(done, seen)
        seen = read_word(done)
    add_to_word(waiting, -1)


@inlined
def finish(board, target):
    """One more unit is done, of a phase that ends with ``target``."""
    done = board + 8 * b.DONE
    if add_to_word(done, 1) + 1 == target and read_word(board + 8 * b.WAITING) > 0:
        wake_all(done)


@inner
def publish(board, whole, images, logits, count):
    """Write a job down and call for help with it; returns its turn."""
    turn = read_word(board + 8 * b.TURN)
    write_word(board + 8 * b.TURN, turn + 1)
    write_word(board + 8 * b.WHOLE, whole)
    write_word(board + 8 * b.IMAGES, images)
    write_word(board + 8 * b.LOGITS, logits)
    write_word(board + 8 * b.COUNT, count)
    write_word(board + 8 * b.BASE, read_word(board + 8 * b.DONE))
    write_word(board + 8 * b.TURN, turn + 2)
    ring(board)
    return turn + 2


@inner
def ring(board):
    """Wake whoever sleeps until there is something to do."""
    bell = board + 8 * b.BELL
    add_to_word(bell, 1)
    if read_word(board + 8 * b.IDLE) > 0:
        wake_all(bell)


@inner
def next_turn(board, last):
    """Wait for a job after ``last``; 0 if the thread is to leave."""
    bell, idle = board + 8 * b.BELL, board + 8 * b.IDLE
    looks = 0
    while True:
        rung = read_word(bell)
        if read_word(board + 8 * b.CLOSED) != 0:
            return 0
        turn = read_word(board + 8 * b.TURN)
        if turn != last and turn % 2 == 0:
            return turn
        looks += 1
        if looks < IDLE_TURNS:
            pause()
            if looks % 8 == 0:
                yield_core()
        elif field(board, b.SLEEPS) == 0:
            return 0
        else:
            add_to_word(idle, 1)
            sleep_until_changed(bell, rung)
            add_to_word(idle, -1)


@inlined
def take(board, unit, turn):
    """Whether the unit was nobody's yet in this turn, and is the caller's now."""
    claim = field(board, b.CLAIMS) + 8 * unit
    seen = read_word(claim)
    return seen < turn and swap_word(claim, seen, turn) != 0


@inlined
def part_row(board, thread, chunk):
    """A copy of a row of the op table, changed to a chunk of its step and to a thread's head."""
    place = field(board, b.CHUNKS) + chunk * (8 * b.CHUNK_COLUMNS)
    arenas = field(board, b.ARENAS)
    row = field(arenas, thread) + t.ROW
    copy(row, field(board, b.TABLE) + field(place, b.CHUNK_ROW) * _ROW_BYTES, _ROW_BYTES)
    store_u64(row + 8 * t.BEGIN, field(place, b.CHUNK_BEGIN))
    store_u64(row + 8 * t.END, field(place, b.CHUNK_END))
    store_u64(row + 8 * t.FIRST_BLOCK, field(place, b.CHUNK_FIRST_BLOCK))
    store_u64(row + 8 * t.END_BLOCK, field(place, b.CHUNK_END_BLOCK))
    scratch = field(arenas, thread) - field(arenas, 0)
    store_u64(row + 8 * t.SCRATCH, scratch)
    if field(row, t.OUT) == t.SINK:
        store_u64(row + 8 * t.OUT, t.SINK + scratch)
    if field(row, t.BITS_OUT) == t.BITS_SINK:
        store_u64(row + 8 * t.BITS_OUT, t.BITS_SINK + scratch)
    return row


@inner
def compute(board, thread, whole, images, logits, steps):
    """Steps ``steps[0]`` to ``steps[1] - 1`` (chunks of them unless ``whole``) of some images."""
    first, last, begin, end = steps
    arena = field(field(board, b.ARENAS), thread if whole else 0)
    constants = field(board, b.CONSTANTS)
    size = field(board, b.LOGIT_BYTES)
    for n in range(begin, end):
        image = images + n * field(board, b.IMAGE_BYTES)
        for i in range(first, last):
            row = field(board, b.TABLE) + i * _ROW_BYTES
            if not whole:
                row = part_row(board, thread, i)
            step(row, arena, constants, image)
        if whole:
            copy(logits + n * size, arena + field(board, b.RESULT), size)


@inner
def work(board, thread, turn, whole, images, logits, count, base):
    """Take part in a job until all of it is taken; turn 0 is a batch that nobody else knows of."""
    units, phases, threads = 1, 1, field(board, b.THREADS)
    if not whole:
        phases, threads = field(board, b.PHASE_COUNT), field(board, b.SPLITS)
    elif turn != 0:
        units = min(count, field(board, b.BATCH_UNITS))
    for phase in range(phases):
        begin, end = 0, units
        if not whole:
            begin = field(field(board, b.PHASES), phase)
            end = field(field(board, b.PHASES), phase + 1)
            wait_until(board, base + begin)
        own = thread * (end - begin) // threads
        for i in range(end - begin):
            unit = begin + (own + i) % (end - begin)
            if turn != 0 and not take(board, unit, turn):
                continue
            if whole:
                steps = (
                    0,
                    field(board, b.ROWS),
                    unit * count // units,
                    (unit + 1) * count // units,
                )
            else:
                at = field(board, b.UNITS)
                steps = (field(at, unit), field(at, unit + 1), 0, 1)
            compute(board, thread, whole, images, logits, steps)
            if turn != 0:
                finish(board, base + end)
    return base + units if whole else base + end


@entry
def run_plan(board, thread, images, logits):
    """Compute ``images``, or serve as another thread of whoever does.

    ``board`` int64 [WORDS]; ``thread`` CALLER, RING, or the number of a thread that serves until
    the board is closed (or, if it may not sleep here, until nothing has come for a while); of the
    caller alone ``images`` uint8 [N, H, W, C] (of float images their bytes, so that one type is
    compiled for) and ``logits`` float32 [N, classes]. All arrays are contiguous.
    """
    at = board.ctypes.data + 0
    if thread == RING:
        ring(at)
        return
    count, first, turn = images.shape[0], 0, 0
    threads, splits = field(at, b.THREADS), field(at, b.SPLITS)
    while True:
        if thread != CALLER:
            turn = next_turn(at, turn)
            if turn == 0:
                return
            whole, n = read_word(at + 8 * b.WHOLE) != 0, read_word(at + 8 * b.COUNT)
            where, to = read_word(at + 8 * b.IMAGES), read_word(at + 8 * b.LOGITS)
            base = read_word(at + 8 * b.BASE)
            if read_word(at + 8 * b.TURN) != turn or (thread >= splits and not whole):
                continue  # the job is over, or not for all
        else:
            n = count - first
            if n == 0:
                return
            whole = (n > 1 and n >= threads) or splits == 1
            if not whole:
                n = 1
            elif splits > 1:
                n -= n % threads
            where = images.ctypes.data + first * field(at, b.IMAGE_BYTES)
            to = logits.ctypes.data + first * field(at, b.LOGIT_BYTES)
            base = read_word(at + 8 * b.DONE)
            if threads > 1 and (n > 1 or splits > 1):
                turn = publish(at, whole, where, to, n)
        target = work(at, thread, turn, whole, where, to, n, base)
        if thread == CALLER:
            if turn != 0:
                wait_until(at, target)
                turn = 0
            if not whole:
                size = field(at, b.LOGIT_BYTES)
                copy(to, field(field(at, b.ARENAS), 0) + field(at, b.RESULT), size)
            first += n
