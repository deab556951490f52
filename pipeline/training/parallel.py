"""Data parallel training: what ``torchrun`` says of this process, and BatchNorm over all of them.

Every rank computes the same masks from (seed, step), so nothing about freezing is communicated;
gradients are averaged by torch's DistributedDataParallel. Layers that are frozen produce no
gradient any more without STE, on all ranks alike, hence ``find_unused_parameters``.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from frostbit.pipeline.errors import UserError

T = TypeVar("T")
POLL_SECONDS = 0.02
MEETING_SECONDS = 1800.0
"""How long processes wait for each other at the start, as torch itself does."""
LONGEST_FINISH = timedelta(days=1)
"""How long the other processes wait for rank 0 to settle and evaluate the network."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: number of this process, 0 writes files and shows progress.
        count: number of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for the other ranks."""
        if self.count > 1:
            dist.barrier()

    def mean(self, values: Tensor) -> Tensor:
        """``values`` averaged over all ranks, on the device they are on."""
        if self.count > 1:
            dist.all_reduce(values)
            values = values / self.count
        return values

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether ``flag`` is set on one of the ranks (they must all ask)."""
        if self.count == 1:
            return flag
        found = torch.tensor(float(flag), device=device)
        dist.all_reduce(found)
        return bool(found > 0)

    def first_alone(self, work: Callable[[], T], device: torch.device) -> T | None:
        """Rank 0 does ``work`` while the others wait; what it refuses stops all of them.

        Returns:
            What ``work`` gave; None on the other ranks.

        Raises:
            UserError: that of rank 0, and a pointer to it on the others.
        """
        found, refusal = None, None
        if self.first:
            try:
                found = work()
            except UserError as error:
                refusal = error
        if self.any(refusal is not None, device):
            raise refusal or UserError("stopped with process 0, which says why")
        return found


def local_device(device: torch.device) -> torch.device:
    """The device of this rank: with CUDA the one that torchrun's LOCAL_RANK names."""
    if device.type != "cuda":
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Inside the block this process belongs to the group that ``torchrun`` describes, if any."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not dist.is_available():
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, count = next(rendezvous("env://", timeout=timedelta(seconds=MEETING_SECONDS)))
    try:
        store = PrefixStore(agree(store, rank, count), store)
    except dist.DistError as error:
        raise UserError(f"process {rank} did not meet process 0; start all {count}") from error
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count)
    try:
        yield Ranks(rank, count)
        _leave(store, rank)
    except RuntimeError as error:
        raise lost(error) or error from error
    finally:
        dist.destroy_process_group()


def agree(store: Any, rank: int, count: int) -> str:
    """A name that the processes started together share, and none started before them.

    torchrun keeps one key-value store over its restarts (torch 2.14, in spite of a comment there).
    Workers started again would find in it the addresses of those that died, and wait for them for
    half an hour. Its restart count does not tell the generations apart on several machines, hence
    a handshake: every process leaves a fresh word, rank 0 answers that word with the name, and
    goes on once all have acknowledged the name. An old word gets an answer that nobody reads.

    Args:
        store: a ``torch.distributed`` store, the same for all, with whatever was left in it.
        rank, count: this process and how many there are.

    Raises:
        UserError: at rank 0, if one of them does not come.
    """
    if rank > 0:
        word = uuid.uuid4().hex
        store.set(f"frostbit/word/{rank}", word)
        name: str = store.get(f"frostbit/answer/{word}").decode()
        store.set(f"{name}/{rank}", b"")
        return name
    name = f"frostbit/group/{uuid.uuid4().hex}"
    waiting, answered = set(range(1, count)), set()
    deadline = time.monotonic() + MEETING_SECONDS
    while waiting:
        if time.monotonic() > deadline:
            absent = ", ".join(str(each) for each in sorted(waiting))
            raise UserError(f"of {count} processes these did not come: {absent}; start all of them")
        for other in sorted(waiting):
            if store.check([f"{name}/{other}"]):
                waiting.remove(other)
            elif store.check([f"frostbit/word/{other}"]):
                word = store.get(f"frostbit/word/{other}").decode()
                if word not in answered:
                    store.set(f"frostbit/answer/{word}", name)
                    answered.add(word)
        time.sleep(POLL_SECONDS)
    return name


def _leave(store: Any, rank: int) -> None:
    """Leave together: rank 0 when it has written the run, the others after it.

    So torchrun still has all of them to start again should rank 0 fail at the end. And a process
    must not end right after a collective: gloo's threads outlive the group (torch 2.14 does not
    free it after DistributedDataParallel), and one that wants Python's lock while the interpreter
    goes down aborts the process.
    """
    if rank == 0:
        store.set("finished", b"")
        return
    with suppress(dist.DistError):  # the store went with rank 0, which is then finished too
        store.wait(["finished"], LONGEST_FINISH)


def lost(error: RuntimeError) -> UserError | None:
    """What to say if ``error`` means that another process is gone; None if it means anything else.

    gloo raises a plain RuntimeError that carries the place in its source.
    """
    text = str(error)
    if not isinstance(error, dist.DistError) and "/gloo/" not in text:
        return None
    reason = text.partition("] ")[2].partition(". ")[0] or text
    return UserError(
        f"another process of this training is gone ({reason}); torchrun --max-restarts N starts "
        "all of them again, and --resume goes on from the last checkpoint"
    )


def distributed(model: nn.Module, ranks: Ranks, device: torch.device, unused: bool) -> nn.Module:
    """``model`` itself for one rank, else wrapped so that its gradients are averaged.

    ``unused`` says that parameters may get no gradient in some steps (frozen without STE).
    """
    if ranks.count == 1:
        return model
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, find_unused_parameters=unused)


class _Sum(torch.autograd.Function):
    """Sum over the ranks; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose batch statistics are those of the global batch, on any device.

    torch's SyncBatchNorm needs a GPU. Mean and then variance are averaged over the ranks, which
    hold equally large shares of the batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        ranks = dist.get_world_size()
        wide = x.float()
        mean = _sum(wide.mean(dim=(0, 2, 3))) / ranks
        centred = wide - mean.view(1, -1, 1, 1)
        variance = _sum(centred.square().mean(dim=(0, 2, 3))) / ranks
        self._track(mean.detach(), variance.detach(), ranks * x.numel() // x.shape[1])
        scale = torch.rsqrt(variance + self.eps) * self.weight
        y: Tensor = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return y.to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics, as torch's BatchNorm does (unbiased variance)."""
        if self.running_mean is None or self.running_var is None:
            raise ValueError("BatchNorm without running statistics cannot be folded")
        if self.num_batches_tracked is None:
            raise ValueError("BatchNorm without a count of its batches has no average")
        self.num_batches_tracked.add_(1)
        momentum = self.momentum or 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * count / max(count - 1, 1), momentum)


def synchronise(model: nn.Module) -> None:
    """Replace every BatchNorm2d of ``model`` by one over all ranks, with the same weights."""
    _replace(model, nn.BatchNorm2d, SyncedBatchNorm2d)


def part(model: nn.Module) -> None:
    """Undo :func:`synchronise`: the network can be used by one process again."""
    _replace(model, SyncedBatchNorm2d, nn.BatchNorm2d)


def _replace(model: nn.Module, old: type[nn.BatchNorm2d], new: type[nn.BatchNorm2d]) -> None:
    for name, module in list(model.named_modules()):
        if type(module) is old:
            made = new(module.num_features, module.eps, module.momentum)
            made.load_state_dict(module.state_dict())
            model.set_submodule(name, made.to(module.weight.device).train(module.training))
