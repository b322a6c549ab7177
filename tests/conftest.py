"""Fixtures: the data directory if there is one, separate weights folders for each test, and seeded random state."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests import checked_once

_tracers: list[object] = []  # coverage's, once it runs: in xdist's workers it starts after this file was imported

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of ``tests.checked_once``, which workers find in their environment."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="checked-once-")
        os.environ[checked_once.FOLDER] = folder.name
        config.add_cleanup(folder.cleanup)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first, then those of many tests: workers that are given a file at a time then end together."""
    tests = Counter(item.path for item in items)
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: (item.path not in long, -tests[item.path]))


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolate each test from the user's weights and timings, and from the random state of other tests."""
    monkeypatch.setenv("EXITBENCH_WEIGHTS", str(tmp_path / "no-weights"))
    monkeypatch.setenv("EXITBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EXITBENCH_LOGS", str(tmp_path / "logs"))
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _traced() -> Iterator[None]:
    """Coverage goes on after AutoAttack's check of the model, which switches every tracer off."""
    now = sys.gettrace()
    if now is not None:
        _tracers[:] = [now]
    elif _tracers:
        sys.settrace(_tracers[0])
    yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The data directory named by EXITBENCH_DATA; tests on real CIFAR-10 and MNIST are skipped without it."""
    folder = os.environ.get("EXITBENCH_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data: EXITBENCH_DATA names no data directory")
    return Path(folder)


@pytest.fixture(scope="session")
def cifar10_dir(data_dir: Path) -> Path:
    if not (data_dir / "cifar10-lossless" / "test.parquet").is_file():
        pytest.skip("needs cifar10-lossless in the data directory")
    return data_dir


@pytest.fixture(scope="session")
def mnist_dir(data_dir: Path) -> Path:
    if not (data_dir / "mnist" / "MNIST" / "raw").is_dir():
        pytest.skip("needs mnist/MNIST/raw in the data directory")
    return data_dir


@pytest.fixture(scope="session")
def authors_checkpoint(data_dir: Path) -> Path:
    """Return the released checkpoint from the data directory or from ``weights`` beside it."""
    name = "triplewins_cifar10_resnet38_checkpoint_60000.pth.tar"
    for folder in (data_dir, data_dir.parent / "weights"):
        if (folder / name).is_file():
            return folder / name
    pytest.skip(f"needs the authors' checkpoint {name} in the data directory or in weights/ beside it")
