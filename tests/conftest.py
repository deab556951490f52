"""Fixtures shared by all tests: one short training run on real data, packed."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests import needs, one_name

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# a machine that is busy, or slow, is no fault of a test
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many checks were skipped for want of something, and how to get it."""
    lines = needs.told(terminalreporter.getreports("skipped"))
    for line in lines:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def _every_package_has_one_name() -> Iterator[None]:
    """Two names would be two modules, with two classes Program."""
    yield
    assert one_name.imported_twice(sys.modules) == []


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder: the digits recipe for two epochs. Read only: copy it to change it."""
    from frostbit.pipeline.run.recipe import load
    from frostbit.pipeline.training.train import Options, train

    out = tmp_path_factory.mktemp("runs") / "digits"
    train(load("digits", {"epochs": 2}), out, Options(device="cpu"))
    return out


@pytest.fixture(scope="session")
def packed(trained: Path) -> Path:
    """``model.bnn`` of :func:`trained`, in a folder of its own."""
    from frostbit.kernels.ir.file import save_program
    from frostbit.pipeline.lowering.pack import pack

    path = trained.parent / "packed.bnn"
    save_program(pack(trained), path)
    return path


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    place = needs.need_any(("chromium", "google-chrome"))
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=place, args=["--no-sandbox"])
        yield started
        started.close()
