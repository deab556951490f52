"""What ``make demo`` installs: the locked packages of the train extra, and nothing of the tests."""

import importlib.util
import sys
from types import ModuleType

import pytest

from tests import ROOT
from tests.supply import LOCKS, names


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", ROOT / "requirements" / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = module
    spec.loader.exec_module(module)
    return module


def test_every_locked_package_is_installed_once_but_triton(demo: ModuleType) -> None:
    rest, torch = demo.parts(demo.pinned(LOCKS["train"]))
    assert sorted([*rest, *torch, "triton"]) == names(LOCKS["train"])
    assert {"torch", "torchvision", "nvidia-cublas", "cuda-toolkit"} <= set(torch)
    assert {"numba", "onnxruntime", "scikit-learn"} <= set(rest)
    assert not {"pytest", "ray", "playwright", "pandas", "pyarrow", "ai-edge-litert"} & {
        *rest,
        *torch,
    }


def test_every_line_goes_along_with_its_hashes(demo: ModuleType) -> None:
    for lock in ("train", "dev"):
        text = LOCKS[lock].read_text()
        found = demo.pinned(LOCKS[lock])
        assert sum(map(len, found.values())) == len(text.splitlines())
        assert all("--hash=sha256:" in "".join(lines) for lines in found.values())


@pytest.mark.parametrize("driver", [False, True])
@pytest.mark.parametrize("served", [False, True])
def test_which_torch(
    driver: bool, served: bool, demo: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(demo, "has_driver", lambda: driver)
    monkeypatch.setattr(demo, "install", lambda _, lines, *__: asked.append("".join(lines)))
    monkeypatch.setattr(demo, "cpu_torch", lambda *_: served)
    demo.main("python")
    assert "setuptools==" in asked[0]
    assert "torch==" not in asked[0]
    assert [("nvidia-cublas==" in text) for text in asked[1:]] == (
        [] if served and not driver else [True]
    )
