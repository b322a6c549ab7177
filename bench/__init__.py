"""The robustness benchmark for networks that exit early.

``evaluate`` attacks a network and returns its accuracy under its deployed exit rule,
and ``certify`` proves bounds that hold for every attack. ``load_network`` loads a network with its weights. ``load_results``,
``compare``, ``sweep`` and ``write_reports`` work on stored results. ``register_model``, ``register_attack`` and
``register_dataset`` add to what can be named. The networks are in ``exitbench.models``, the attacks in ``exitbench.attacks``.
Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exitbench.api.certify import certify
    from exitbench.api.evaluate import evaluate
    from exitbench.api.evaluation import Accuracy, Evaluation
    from exitbench.api.networks import load_network
    from exitbench.api.results import Comparison, Sweep, compare, load_results, sweep, write_reports
    from exitbench.attacks.registry import register_attack
    from exitbench.data.cards import Dataset, DatasetCard, register_dataset
    from exitbench.data.split import Split
    from exitbench.errors import UserError
    from exitbench.models.multi_exit import MultiExitNet
    from exitbench.models.registry import register_model
    from exitbench.store.certificate import Certificate

    __version__: str

__all__ = [
    "Accuracy",
    "Certificate",
    "Comparison",
    "Dataset",
    "DatasetCard",
    "Evaluation",
    "MultiExitNet",
    "Split",
    "Sweep",
    "UserError",
    "__version__",
    "certify",
    "compare",
    "evaluate",
    "load_network",
    "load_results",
    "register_attack",
    "register_dataset",
    "register_model",
    "sweep",
    "write_reports",
]

_HOME = {
    "certify": "exitbench.api.certify",
    "Certificate": "exitbench.store.certificate",
    "evaluate": "exitbench.api.evaluate",
    "Accuracy": "exitbench.api.evaluation",
    "Evaluation": "exitbench.api.evaluation",
    "Comparison": "exitbench.api.results",
    "Sweep": "exitbench.api.results",
    "compare": "exitbench.api.results",
    "load_network": "exitbench.api.networks",
    "load_results": "exitbench.api.results",
    "sweep": "exitbench.api.results",
    "write_reports": "exitbench.api.results",
    "Dataset": "exitbench.data.cards",
    "DatasetCard": "exitbench.data.cards",
    "register_attack": "exitbench.attacks.registry",
    "register_dataset": "exitbench.data.cards",
    "Split": "exitbench.data.split",
    "UserError": "exitbench.errors",
    "MultiExitNet": "exitbench.models.multi_exit",
    "register_model": "exitbench.models.registry",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        return version("exitbench")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
