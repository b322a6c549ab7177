"""Weight files: safetensors beside a small JSON card, found by model, dataset and training, checked by digest.

Two folders hold them: ``models/weights`` (shipped) and the user's own, named by the environment
variable ``EXITBENCH_WEIGHTS`` (on Linux by default ``~/.local/share/exitbench/weights``), where imported and
freshly trained weights go. A card in the user's folder comes first.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec.structs import replace
from safetensors.torch import save
from torch import Tensor, nn

from exitbench.models.own_code import IncompleteInstallation
from exitbench.models.state_dict import StateError, TensorFault, fill
from exitbench.models.stored import ATTACKS_RENAMED, Content, Format, Stored, Unreadable
from exitbench.models.tensor_file import TensorFile, WeightsError, read_file
from exitbench.models.user_folders import weights_folder
from exitbench.models.whole_file import write_whole

__all__ = [
    "IMPORTED",
    "JOURNAL",
    "SHIPPED",
    "WeightsCard",
    "WeightsError",
    "file_sha256",
    "find_weights",
    "known_weights",
    "load_weights",
    "round_to_half",
    "save_weights",
]

_log = logging.getLogger(__name__)

_OF_LIGHTNING = (
    ". It is a checkpoint of PyTorch Lightning, whose names are those of the LightningModule's attributes; save the network's "
    "own with torch.save(lightning_module.NETWORK.state_dict(), 'weights.pt')"
)

SHIPPED = Path(__file__).parent / "weights"
IMPORTED = "imported from "
"""Prefix of the source of weights that were not trained here but imported from others' files."""

JOURNAL = ".run.json"
"""Ending of the files beside the cards that tell of a training run."""
_FAR, _SMALL = 20, 1 << 20
"""How many times the network a weight file may be, if it is over a megabyte."""
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class WeightsCard(Stored, frozen=True):
    """What is known of one weight file.

    Attributes:
        model: registered name of the architecture.
        dataset: dataset it was trained on.
        training: short name of the training (``average``, ``standard``, ``authors``); part of the file name.
        sha256: digest of the safetensors file.
        source: where it comes from: the command, or the imported file and its digest.
        policy: the exit policy it is deployed with, as written on the command line; None to calibrate one.
        calibration: digest of the data and procedure that gave the policy.
        details: recipe, seed, versions, measured numbers: whatever the maker records.
    """

    model: str
    dataset: str
    training: str
    sha256: str
    source: str
    policy: str | None = None
    calibration: str | None = None
    details: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def stem(self) -> str:
        """File name without its ending."""
        return f"{self.model}-{self.dataset}-{self.training}"


def _card_1_to_2(content: Content) -> Content:
    """An attack was renamed: measured accuracies are by attack."""
    details = content.get("details")
    measured = details.get("measured") if isinstance(details, dict) else None
    shares = measured.get("accuracy") if isinstance(measured, dict) else None
    if not isinstance(shares, dict):
        return content
    shares = {ATTACKS_RENAMED.get(name, name): share for name, share in shares.items()}
    return {**content, "details": {**content["details"], "measured": {**content["details"]["measured"], "accuracy": shares}}}


DEFAULT_TRAININGS = ("max_average_fast", "pgd_fast")
"""Trainings whose weights are used where none are named: adversarial training, on the exits' attacks where there are exits."""

WEIGHTS_CARD = Format("a weights card", WeightsCard, {1: _card_1_to_2}, indent=2, sort=False)


def known_weights(model: str | None = None) -> list[tuple[WeightsCard, Path]]:
    """Every card found with its safetensors path; optionally of one model.

    The user's come first, then the shipped ones: those of the trainings in ``DEFAULT_TRAININGS`` before others.

    Raises:
        WeightsError: for a card that is not readable, naming the file.
    """
    found: dict[str, tuple[WeightsCard, Path]] = {}
    shipped = sorted(shipped_weights(), key=lambda weights: weights[0].training not in DEFAULT_TRAININGS)
    for card, path in (*_weights_in(weights_folder()), *shipped):
        if model is None or card.model == model:
            found.setdefault(card.stem, (card, path))
    return list(found.values())


def shipped_weights() -> list[tuple[WeightsCard, Path]]:
    """The cards that come with the project, whatever the user has of the same name.

    Raises:
        WeightsError: for a card that is not readable, naming the file.
        IncompleteInstallation: there are none, or a card without its weights.
    """
    found = list(_weights_in(SHIPPED))
    missing = [path for _, path in found if not path.is_file()] if found else [SHIPPED / "*.json"]
    if missing:
        raise IncompleteInstallation(missing[0])
    return found


def _weights_in(folder: Path) -> Iterator[tuple[WeightsCard, Path]]:
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        if not path.name.endswith(JOURNAL):
            yield _read_card(path), path.with_suffix(".safetensors")


def find_weights(model: str, dataset: str, training: str | None = None) -> tuple[WeightsCard, Path]:
    """The weights of a model for a dataset; the first known when ``training`` is not given.

    Raises:
        WeightsError: none such; says what there is, that of this dataset first.
    """
    known = known_weights(model)
    for card, path in known:
        if card.dataset == dataset and training in (None, card.training):
            return card, path
    of_the_dataset_first = sorted(known, key=lambda weights: (weights[0].dataset != dataset, weights[0].stem))
    have = ", ".join(f"{card.dataset} ({card.training})" for card, _ in of_the_dataset_first) or "none at all"
    wanted = dataset if training is None else f"{dataset} ({training})"
    raise WeightsError(
        f"no weights of {model} for {wanted}; there are: {have}. "
        "Train some with `exitbench train`, or import the authors' with `exitbench import-checkpoint`"
    )


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_weights(model: nn.Module, path: Path, sha256: str | None = None) -> str:
    """Fill ``model`` from a safetensors file or a torch checkpoint and return the file's digest.

    Raises:
        WeightsError: missing, another digest than ``sha256``, no file of tensors, or of another architecture.
    """
    if not path.is_file():
        raise WeightsError(f"weights file {path} is missing")
    _refuse_far_too_large(model, path)
    found = file_sha256(path)
    if sha256 is not None and found != sha256:
        raise WeightsError(
            f"{path} is corrupt or not the registered file: SHA-256 {found[:16]}..., the card says {sha256[:16]}...; "
            "delete it and restore it from the repository, train it or import it again"
        )
    _fill_first_that_fits(model, read_file(path), path)
    return found


def _fill_first_that_fits(model: nn.Module, file: TensorFile, path: Path) -> None:
    errors = []
    for keys, state in file.states.items():
        try:
            fill(model, state)
        except TensorFault as error:
            raise WeightsError(f"{path}: {error}") from error
        except StateError as error:
            errors.append(f"{error}{f' (under {keys!r})' if keys else ''}")
        else:
            if others := [repr(other) for other in file.states if other != keys]:
                _log.warning("%s: the weights under %r are used, not those under %s", path, keys, ", ".join(others))
            return
    lightning = _OF_LIGHTNING if file.is_lightning else ""
    raise WeightsError(f"{path} holds the weights of another architecture: {'; or '.join(errors)}{lightning}")


def _refuse_far_too_large(model: nn.Module, path: Path) -> None:
    """Before a byte is read: a checkpoint may hold an optimiser's state as well, but not ``_FAR`` times the network."""
    own = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values() if isinstance(tensor, Tensor))
    if (size := path.stat().st_size) > max(_FAR * own, _SMALL):
        raise WeightsError(f"{path} has {size:,} bytes, the network's weights have {own:,}: it holds something else")


@torch.no_grad()
def round_to_half(model: nn.Module) -> None:
    """Round every weight to the nearest float16 in place, so that storing them in half the space loses nothing."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())


def save_weights(model: nn.Module, folder: Path, card: WeightsCard) -> tuple[WeightsCard, Path]:
    """Write ``model`` and its card into ``folder``; the card returned carries the file's digest.

    Tensors that float16 holds exactly are stored so. Each file appears whole or not at all.

    Raises:
        WeightsError: a model, dataset or training whose name cannot be part of a file name.
        OSError: the folder cannot be written.
    """
    for part in (card.model, card.dataset, card.training):
        if not _SAFE_NAME.fullmatch(part):
            raise WeightsError(f"{part!r} cannot be part of a file name")
    content = save({name: _smallest(tensor).contiguous() for name, tensor in model.state_dict().items()})
    signed = replace(card, sha256=hashlib.sha256(content).hexdigest())
    path = folder / f"{card.stem}.safetensors"
    write_whole(path, content)
    write_whole(path.with_suffix(".json"), WEIGHTS_CARD.text(signed))
    return signed, path


def _smallest(tensor: Tensor) -> Tensor:
    if tensor.dtype == torch.float32 and torch.equal(tensor.half().float(), tensor):
        return tensor.half()
    return tensor


def _read_card(path: Path) -> WeightsCard:
    try:
        card = WEIGHTS_CARD.read_text(path.read_bytes(), path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    except Unreadable as error:
        raise WeightsError(str(error)) from error
    if card.stem != path.stem:
        raise WeightsError(f"{path} describes {card.stem}; a card has the name of what it describes")
    return card
