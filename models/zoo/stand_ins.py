"""Stand-ins for two modules that robustbench 1.1.1 imports and that cannot be installed beside current packages."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn


class OldAutoAttack:
    """AutoAttack with the constructor and the call of the package ``autoattack``, implemented with pyautoattack.

    Only ``robustbench.benchmark`` uses it. Evaluations of exitbench call pyautoattack directly.
    """

    def __init__(
        self,
        model: nn.Module,
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: list[str] | None = None,
        version: str = "standard",
        is_tf_model: bool = False,
        device: Any = "cpu",
        log_path: str | None = None,
    ) -> None:
        from pyautoattack import AutoAttack

        if is_tf_model or log_path is not None:
            raise NotImplementedError("pyautoattack takes no is_tf_model and no log_path: it logs to the logger auto-attack")
        attacks = attacks_to_run or None
        self._real = AutoAttack(model, attacks=attacks, device=device, eps=eps, norm=norm, seed=seed, version=version)
        self._real.verbose = verbose

    def run_standard_evaluation(
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int = 250,
        return_labels: bool = False,
        state_path: Path | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return images ``(N, C, H, W)`` in the ball around ``x_orig``; with ``return_labels``, the predicted classes, too."""
        x, y = self._real.run_standard_evaluation(x_orig, y_orig, batch_size=bs, state_path=state_path)
        return (x, y) if return_labels else x


def _autoattack() -> dict[str, Any]:
    return {"AutoAttack": OldAutoAttack}


def _autoattack_state() -> dict[str, Any]:
    return {"EvaluationState": importlib.import_module("pyautoattack.state").EvaluationState}


def _pkg_resources() -> dict[str, Any]:
    return {"resource_filename": _resource_filename}


def _resource_filename(module: str, path: str) -> str:
    """Return the path of a file that is installed beside ``module``."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module named {module!r}", name=module)
    return str(Path(spec.origin).parent / path)


STAND_INS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "autoattack": _autoattack,
    "autoattack.state": _autoattack_state,
    "pkg_resources": _pkg_resources,
}
"""A function for each stand-in that returns its contents."""


class StandInFinder(MetaPathFinder, Loader):
    """A finder of the stand-ins; it comes last, so that it is asked only for modules that are not installed.

    Attributes:
        used: Whether a stand-in was imported.
    """

    def __init__(self) -> None:
        self.used = False

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=fullname == "autoattack") if fullname in STAND_INS else None

    def exec_module(self, module: ModuleType) -> None:
        self.used = True
        vars(module).update(STAND_INS[module.__name__]())
