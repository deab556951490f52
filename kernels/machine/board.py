"""The board: what the threads of one engine share. Written by Python once, then by compiled code.

A *job* is one image, cut into *units*, or a batch, whose units are some images each. Every unit of
a job is computed by one thread, whichever takes it first by writing the job's number (*turn*) into
the unit's claim; a thread that is late finds nothing left to take. Units of one *phase* can be
computed in any order; a phase begins when all units before it are done. So nobody ever waits for a
thread that has not begun, and the calling thread alone can do it all.

Words are int64, addresses absolute. Those that threads wait for have a cache line of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

LINE = 8
"""Words of a cache line."""

BELL = 0  # rung for every job, and when the board is closed; who waits for that sleeps here
CLOSED = 1  # not 0: all threads are to leave
IDLE = 2  # how many sleep until BELL changes
TURN = LINE  # number of the last job, even; odd while the next is written down
(
    WHOLE,  # not 0: the job is a batch, of which each unit is some whole images
    IMAGES,  # address of the first image
    LOGITS,  # address of its logits
    COUNT,  # of images
    BASE,  # DONE before its first unit
) = range(LINE + 1, LINE + 6)
DONE = 2 * LINE  # units that were ever done
WAITING = 2 * LINE + 1  # how many sleep until DONE changes
# What never changes.
(
    TABLE,  # address of the op table
    ROWS,  # its steps
    CONSTANTS,  # address
    RESULT,  # offset of the logits in an arena
    ARENAS,  # address of int64 [THREADS]; one image is computed in the first
    THREADS,
    SPLITS,  # how many threads share one image; 1: it is not cut
    IMAGE_BYTES,
    LOGIT_BYTES,
    CHUNKS,  # address of int64 [chunks][CHUNK_COLUMNS]
    UNITS,  # address of int64 [units + 1]: first chunk of each
    PHASES,  # address of int64 [phases + 1]: first unit of each
    PHASE_COUNT,
    BATCH_UNITS,  # most units of a batch
    CLAIMS,  # address of int64 [units, at least BATCH_UNITS]: last turn that each was taken in
    SLEEPS,  # whether threads sleep in the kernel; if not, in Python
) = range(3 * LINE, 3 * LINE + 16)
WORDS = 5 * LINE

# Columns of a chunk: a row of the op table, and what of it (columns of the same names there).
CHUNK_ROW, CHUNK_BEGIN, CHUNK_END, CHUNK_FIRST_BLOCK, CHUNK_END_BLOCK = range(5)
CHUNK_COLUMNS = 5

UNITS_A_THREAD = 16
"""Of a batch: the last unit keeps one thread busy alone for so small a part of its time."""


def make_board(values: Mapping[int, int], arenas: Sequence[int], units: int) -> NDArray[np.int64]:
    """A board with these words, a thread for each arena, and claims for at least ``units``."""
    size = UNITS_A_THREAD * len(arenas)
    claims = max(size, units)
    whole = np.zeros(LINE + WORDS + len(arenas) + claims, np.int64)
    start = -whole.ctypes.data // 8 % LINE
    board = whole[start : start + WORDS]
    after = whole[start + WORDS :]
    after[: len(arenas)] = arenas
    for word, value in values.items():
        board[word] = value
    board[ARENAS], board[CLAIMS] = after.ctypes.data, after[len(arenas) :].ctypes.data
    board[THREADS], board[BATCH_UNITS] = len(arenas), size
    return board
