"""Entries of RobustBench's model zoo, built and loaded by robustbench's own code."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from exitbench.models.cost import count_mmacs
from exitbench.models.error_text import first_line
from exitbench.models.errors import UnknownName
from exitbench.models.foreign import ForeignModelError
from exitbench.models.tensor_file import WeightsError
from exitbench.models.user_folders import weights_folder
from exitbench.models.zoo.checkpoints import guarded_loads
from exitbench.models.zoo.package import robustbench_package, robustbench_version
from exitbench.models.zoo.published import Published, WithWeights, shortest
from exitbench.models.zoo.sketch import OnCpu, Sketching, own_constants, sketch
from exitbench.models.zoo.surroundings import limited_waiting

NORMS = ("Linf", "L2")
"""Threat models of RobustBench that are balls; corruptions are not evaluated here."""

DATASETS = ("cifar10", "cifar100", "imagenet")


@dataclass(frozen=True)
class Entry(Published):
    """An entry of the model zoo, such as ``Wong2020Fast`` for CIFAR-10, Linf.

    Attributes:
        entry: Its name in the zoo.
    """

    entry: str

    @property
    def path(self) -> str:
        """Dataset, norm and name, separated by slashes."""
        return f"{self.dataset}/{self.norm}/{self.entry}"

    def build(self) -> nn.Module:
        with robustbench_package() as package, _quiet(), OnCpu():
            net = self._made(package).eval()
        own_constants(net)
        return net

    def mmacs(self) -> float:
        """Count the 10^6 multiply-accumulates of one image, without weights.

        Raises:
            ForeignModelError: If the network cannot be built or run without values in its tensors.
        """
        with robustbench_package() as package, _quiet():
            net = sketch(lambda: self._made(package))
            try:
                with Sketching():
                    return count_mmacs(net, self.input_shape)
            except Exception as error:
                raise ForeignModelError(f"{self.path} cannot be run without weights ({first_line(error)})") from error

    def load(self) -> WithWeights:
        with robustbench_package() as package, OnCpu():
            origin, place = self._origin(package)
            with guarded_loads(folder(), origin) as guard, limited_waiting():
                net = self._loaded(package, f"fetch it elsewhere ({origin}) and put it at {place}")
            guard.record()
        own_constants(net)
        digests = ", ".join(f"{path.name} SHA-256 {digest}" for path, digest in guard.sha256.items())
        return WithWeights(net.eval(), f"robustbench {robustbench_version()}, {self.path}, {digests or 'weights of a library'}")

    def _loaded(self, package: ModuleType, by_hand: str) -> nn.Module:
        try:
            net: nn.Module = package.utils.load_model(self.entry, folder(), self.dataset, self.norm)
        except (WeightsError, ForeignModelError):
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise WeightsError(
                f"robustbench could not load {self.path} ({reason}); where its checkpoint cannot be downloaded, {by_hand}"
            ) from error
        return net

    def _made(self, package: ModuleType) -> nn.Module:
        """Build the architecture with fresh weights, chosen as ``robustbench.utils.load_model`` chooses it."""
        timm = package.utils.timm
        in_timm = f"{self.entry.lower().replace('-', '_')}_{self.dataset}_{str(self.norm).lower()}"
        try:
            if timm.is_model(in_timm):
                classes = package.utils.DATASET_CLASSES[package.utils.BenchmarkDataset(self.dataset)]
                net = timm.create_model(in_timm, num_classes=classes, pretrained=False)
            else:
                net = zoo(package, self.dataset, str(self.norm))[self.entry]["model"]()
        except Exception as error:
            raise ForeignModelError(f"robustbench cannot make {self.path} here ({first_line(error)})") from error
        if not isinstance(net, nn.Module):
            raise ForeignModelError(f"robustbench made {type(net).__name__} of {self.path}, not a network")
        return net

    def _origin(self, package: ModuleType) -> tuple[str, str]:
        """Return where its checkpoints can be downloaded, and where robustbench looks for them."""
        ids = zoo(package, self.dataset, str(self.norm))[self.entry].get("gdrive_id")
        if ids is None:
            return "timm shows the address", str(folder() / "hub" / "checkpoints")
        path = folder() / self.dataset / str(self.norm) / f"{self.entry}.pt"
        places = [f"{path}_m{i}.pt" for i in range(len(ids))] if isinstance(ids, list) else [str(path)]
        addresses = [f"https://drive.google.com/uc?id={one}" for one in (ids if isinstance(ids, list) else [ids])]
        return ", ".join(addresses), ", ".join(places)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what architectures print and warn about when they are built."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def folder() -> Path:
    """Return the folder of checkpoints, in robustbench's own layout: ``robustbench/`` in the user's weights folder."""
    return weights_folder() / "robustbench"


def zoo(package: ModuleType, dataset: str, norm: str) -> Mapping[str, Any]:
    """Return the zoo's entries by name."""
    utils = package.utils
    threat: Callable[[str], Any] = utils.ThreatModel
    entries: Mapping[str, Any] = utils.all_models[utils.BenchmarkDataset(dataset)].get(threat(norm), {})
    return entries


def find_entry(name: str) -> Entry:
    """Return the entry given as ``NAME``, ``NORM/NAME`` or ``DATASET/NORM/NAME``; the defaults are CIFAR-10 and Linf.

    Raises:
        ForeignModelError: If robustbench is not installed, or the name has another form.
        UnknownName: If there is no such dataset, norm or entry.
    """
    *prefix, entry = name.split("/")
    dataset, norm = {0: ("cifar10", "Linf"), 1: ("cifar10", *prefix), 2: tuple(prefix)}.get(len(prefix), ("", ""))
    if not (dataset and norm and entry):
        raise ForeignModelError(f"{name!r} is no name of RobustBench's; the forms are NAME, NORM/NAME and DATASET/NORM/NAME")
    if dataset not in DATASETS:
        raise UnknownName("dataset of RobustBench", dataset, DATASETS)
    if norm not in NORMS:
        raise UnknownName("norm of RobustBench", norm, NORMS)
    known = entry_names(dataset, norm)
    if entry not in known:
        raise UnknownName(f"entry of RobustBench ({dataset}, {norm})", entry, known)
    return Entry(f"robustbench:{shortest(f'{dataset}/{norm}/{entry}')}", dataset, norm, "published", entry)


def entry_names(dataset: str = "cifar10", norm: str = "Linf") -> list[str]:
    """Return the names of all entries, in the zoo's order.

    Raises:
        ForeignModelError: If robustbench is not installed.
    """
    with robustbench_package() as package:
        return list(zoo(package, dataset, norm))
