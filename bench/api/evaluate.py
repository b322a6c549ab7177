"""``exitbench.evaluate``: evaluates the robustness of a network on images under its deployed exit rule, in one call."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from exitbench.api.display import Display, NoDisplay, ProgressBar
from exitbench.api.evaluation import Evaluation
from exitbench.api.execution import execute_plan, plan_evaluation
from exitbench.api.inputs import attack_names, dataset_named, network_given
from exitbench.attacks.regions import Norm
from exitbench.attacks.settings import KNOBS
from exitbench.errors import UserError
from exitbench.models.user_code import contained
from exitbench.models.user_folders import data_folder
from exitbench.runner.prepare import Precision, Request
from exitbench.scoring.load import evaluation_of
from exitbench.store.run_record import RunRecord, evaluation_key
from exitbench.store.store import Store


@contained()
def evaluate(
    model: str | nn.Module,
    *,
    dataset: Any = "auto",
    attacks: str | Iterable[str] = "all",
    policy: str | None = None,
    n: int | None = None,
    norm: Norm = "Linf",
    eps: float | None = None,
    grid: int | None = None,
    seed: int = 0,
    training: str | None = None,
    weights: str | Path | None = None,
    calibration: Any = None,
    results: str | Path | None = None,
    data: str | Path | None = None,
    name: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    progress: bool | Display = True,
    **settings: Any,
) -> Evaluation:
    """Attack a network and return its robust accuracy under its deployed exit rule.

    The verdicts are those of ``exitbench run`` with the same arguments, to the last bit.

    Args:
        model: A registered name (``rdi_resnet38``), a published network (``robustbench:NAME``), a reference
            (``file.py:make``, ``package.module:make``), or a ``torch.nn.Module`` that maps images ``(B, C, H, W)`` in [0, 1] to
            the logits of its exits: a list of ``(B, classes)``, one tensor ``(K, B, classes)``, or ``(B, classes)`` for one exit.
            A module must be in evaluation mode; it is copied.
        dataset: A registered name (its test split), a pair ``(images, labels)`` of tensors or arrays, or a
            ``torch.utils.data.Dataset`` of such pairs. Images are floats in [0, 1] or uint8; normalisation belongs to the
            network. ``"auto"`` is a registered model's own dataset if it is available, else ``digits``.
        attacks: Names, as a sequence or separated by commas; ``"all"`` is the whole matrix (``exitbench list attacks``).
        policy: The exit policy, such as ``"entropy:0.3,0.5"``, ``"entropy@equal"``, or ``"exit:2"``. None for that of the
            registered weights, else entropy thresholds that send equal shares of held-out images to all exits. Without
            held-out images, as for images in memory without ``calibration``, it is the last exit, with a note.
        n: Number of samples, the first of the dataset; None for all in memory, else 64 on a CPU and 1,000 on a GPU.
        norm: Norm of the threat model, ``"Linf"`` or ``"L2"``.
        eps: Radius, for pixels in [0, 1]; None for the dataset's usual one, or 8/255 (L2: 0.5) for images in memory.
        grid: Steps of pixel values between 0 and 1: only images whose pixels are multiples of 1/``grid`` count, 255 for images of
            8 bits, as files and cameras give. None for any pixel values.
        seed: Seed of the attacks' noise.
        training: Name of the registered weights; None for the first known.
        weights: A file of tensors (safetensors, or a torch state dict) in place of registered weights.
        calibration: Held-out training images in the form of ``dataset``, to set thresholds for images in memory.
        results: Folder of results; the same call resumes where it stopped and computes nothing twice. None to store nothing.
        data: Folder of the datasets; None for ``EXITBENCH_DATA`` or its default.
        name: Name of a module in memory in reports; None for that of its class.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``. A module in memory must be on this device; ``"auto"`` uses its device.
        mean: One number per channel, for pixels in [0, 1]. With ``std`` it normalises images in front of a network that does not
            do so itself: one given by reference, in memory, or of timm's.
        std: The standard deviations that go with ``mean``.
        precision: Precision of the search, ``"auto"``, ``"fp32"`` or ``"bf16"``; verdicts are always those of the fp32 model.
        progress: Whether to show a progress bar, or a custom display.
        **settings: Settings of the gradient attacks: ``method``, ``loss``, ``steps``, ``step_size``, ``restarts``, ``keep``,
            ``gamma``, ``budget``; see ``exitbench run --help``.

    Raises:
        UserError: If an argument cannot be used; the message says what to do.
        KeyboardInterrupt: If it is interrupted; with ``results``, finished work is kept.
    """
    display: Display = progress if not isinstance(progress, bool) else ProgressBar() if progress else NoDisplay()
    network, device = network_given(model, name, device)
    samples = dataset_named(dataset, calibration, network, n)
    request = Request(
        model=model if isinstance(model, str) else network.name,
        data=data_folder() if data is None else Path(data),
        dataset=samples.name,
        training=training,
        weights=None if weights is None else Path(weights),
        policy=policy,
        n=samples.n,
        norm=norm,
        eps=eps,
        grid=grid,
        device=device,
        precision=precision,
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
        knobs=_known(settings),
    )
    with _store(results) as store:
        prepared, plan = plan_evaluation(request, attack_names(attacks), seed, store, display, network)
        execution = execute_plan(prepared, plan, seed, store, display)
        if execution.interrupted:
            raise KeyboardInterrupt
        key = evaluation_key(execution.record)
        found = evaluation_of([record for record in store.runs() if evaluation_key(record) == key], store)
        if found is None:
            raise UserError(f"the clean images could not be evaluated: {_error(execution.record, store)}")
        return Evaluation(found, None if results is None else Path(results))


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    """Return ``settings`` if all of them are known."""
    import difflib

    for name in settings:
        if name not in KNOBS:
            near = difflib.get_close_matches(name, KNOBS, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"evaluate() got an unexpected keyword argument {name!r}{hint} (settings: {', '.join(KNOBS)})")
    return settings


@contextmanager
def _store(results: str | Path | None) -> Iterator[Store]:
    """Yield the store in ``results``, or else in a temporary folder."""
    if results is not None:
        yield Store(Path(results) / "store")
        return
    with tempfile.TemporaryDirectory(prefix="exitbench-") as folder:
        yield Store(Path(folder))


def _error(record: RunRecord, store: Store) -> str:
    errors = [error.error for key in record.attacks[0].keys if (error := store.read_error(key))]
    return str(errors[0]) if errors else "unknown error"
