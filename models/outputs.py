"""Reads what networks return: the logits of their exits in any of the forms in use, and gate scores beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from exitbench.models.errors import ForeignModelError
from exitbench.models.gate_scores import with_score

FORMS = (
    "a list, tuple, dictionary or dataclass of logits (B, classes), one per exit, a stacked tensor (exits, B, classes), or one "
    "tensor (B, classes)"
)
LOGITS = ("logits", "outputs", "exits")
"""Names of an entry that holds the logits of all exits; others beside it are left alone."""

SCORES = ("gates", "gate_scores", "scores")
"""Names of an entry that holds the scores of gate heads."""

Layout = Literal["list", "exits first", "images first"]
"""How gate scores are laid out: a list of ``(B,)`` or ``(B, 1)``, a tensor ``(K, B)``, or a tensor ``(B, K)``."""


class Outputs(NamedTuple):
    """The outputs of a network for a batch.

    Attributes:
        logits: One tensor ``(B, classes)`` per exit, or all in one ``(K, B, classes)``.
        scores: The gate scores as they came; None without any.
    """

    logits: Tensor | Sequence[Tensor]
    scores: object | None


def read_outputs(outputs: object, batch: int) -> Outputs:
    """Return logits and gate scores of what a network returned for ``batch`` images.

    Args:
        outputs: One of ``FORMS``. A dictionary, dataclass or named tuple may hold all logits in one entry (``LOGITS``) and gate
            scores in another (``SCORES``); without the former, its values are the logits, in order.
        batch: Number of images.

    Raises:
        ForeignModelError: If the outputs have another form.
    """
    entries = _entries(outputs)
    if entries is None:
        return Outputs(_logits(outputs, batch), None)
    logits, scores = _parted(entries)
    return Outputs(_logits(logits, batch), scores)


def read_exit(output: object, batch: int) -> Outputs:
    """Return the logits of one exit, ``(1, B, classes)`` or a list of one tensor, and the score of its gate.

    Args:
        output: Logits ``(B, classes)``, or a pair or a dictionary of logits and the score of the exit's gate.
        batch: Number of images.

    Raises:
        ForeignModelError: If the output has another form.
    """
    if isinstance(output, tuple) and len(output) == 2 and _entries(output) is None:
        output = {"logits": output[0], "scores": output[1]}
    found = read_outputs(output, batch)
    if len(found.logits) != 1:
        raise ForeignModelError(f"the network yields {len(found.logits)} exits at once; it must yield one after another")
    return found


def gathered(outputs: Sequence[Outputs], batch: int) -> Outputs:
    """Return the outputs of exits that were read one by one, as of a network that returns them together."""
    scores = [None if each.scores is None else _score(each.scores, batch, "the score that it yields") for each in outputs]
    logits = [each.logits[0] for each in outputs]
    return Outputs(logits, scores if any(score is not None for score in scores) else None)


def layouts(scores: object, n_exits: int, batch: int) -> set[Layout]:
    """Return how gate scores may be laid out; several where ``batch`` is about the number of exits.

    Args:
        scores: A list of tensors ``(B,)`` or ``(B, 1)``, one per exit, or a tensor ``(K, B)`` or ``(B, K)``; that of the last
            exit may be missing.
        n_exits: Number of exits K.
        batch: Number of images B.

    Raises:
        ForeignModelError: If they are laid out in no such way.
    """
    fitting = (n_exits, n_exits - 1)
    if not isinstance(scores, Tensor):
        found = _scores_in(scores)
        for k, score in enumerate(found, start=1):
            _score(score, batch, f"gate score {k}")
        if len(found) not in fitting:
            raise ForeignModelError(_count_text(len(found), n_exits))
        return {"list"}
    plain = _flat(scores)
    exits_first = plain.ndim == 2 and plain.shape[1] == batch and plain.shape[0] in fitting
    images_first = plain.ndim == 2 and plain.shape[0] == batch and plain.shape[1] in fitting
    if not exits_first and not images_first:
        raise ForeignModelError(
            f"the network's gate scores have the shape {tuple(scores.shape)} for {batch} images and {n_exits} exits; they must "
            "be (exits, B) or (B, exits), and the last exit's may be missing"
        )
    _refuse_decisions(plain)
    both: list[tuple[Layout, bool]] = [("exits first", exits_first), ("images first", images_first)]
    return {layout for layout, fits in both if fits}


def joined(outputs: Outputs, layout: Layout | None, gates: int) -> Tensor:
    """Return the logits ``(K, B, classes)`` in fp32, with the scores that they are to carry.

    Args:
        outputs: What was read.
        layout: Layout of the scores; None to leave them out.
        gates: How many exits, from the first, have a gate: all but a network's last.
    """
    logits = outputs.logits
    if layout is None or outputs.scores is None or not gates:
        return in_fp32(logits if isinstance(logits, Tensor) else torch.stack(list(logits)))
    scores = _laid_out(outputs.scores, layout)
    each = enumerate(map(in_fp32, logits))
    return torch.stack([with_score(one, in_fp32(scores[k])) if k < gates else one for k, one in each])


def in_fp32(tensor: Tensor) -> Tensor:
    """Return a tensor of half precision in fp32: decisions are made in it, whatever the network computes in."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def are_probabilities(logits: Tensor) -> Tensor:
    """Return for each exit of ``(K, B, classes)`` whether it returns probabilities, ``(K,)`` bool."""
    in_range = ((logits >= 0) & (logits <= 1)).flatten(1).all(1)
    return in_range & ((logits.sum(-1) - 1).abs() < 1e-4).all(1)


def _entries(outputs: object) -> dict[str, Any] | None:
    """Return the entries of a dictionary, dataclass, or named tuple with an entry that has a meaning; None of anything else."""
    if isinstance(outputs, Mapping):
        return {str(name): value for name, value in outputs.items() if value is not None}
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        values = {field.name: getattr(outputs, field.name) for field in dataclasses.fields(outputs)}
        return {name: value for name, value in values.items() if value is not None}
    names = getattr(outputs, "_fields", ())
    if isinstance(outputs, tuple) and {*LOGITS, *SCORES} & set(names):
        return {name: value for name, value in zip(names, outputs, strict=True) if value is not None}
    return None


def _parted(entries: Mapping[str, Any]) -> tuple[object, object | None]:
    """Return the logits and the gate scores among the entries."""
    holders, gates = ([name for name in names if name in entries] for names in (LOGITS, SCORES))
    for names in (holders, gates):
        if len(names) > 1:
            raise ForeignModelError(f"the network returns both {names[0]!r} and {names[1]!r}: which is meant cannot be told")
    scores = entries[gates[0]] if gates else None
    others = {name: value for name, value in entries.items() if name not in (*holders, *gates)}
    if not holders:
        if not others:
            raise ForeignModelError(f"the network returns {_names(entries)}, and no logits; it must return {FORMS}")
        return list(others.values()), scores
    logits = entries[holders[0]]
    if isinstance(logits, Tensor) and logits.ndim == 2 and (rivals := [name for name in others if _hold(others[name], logits)]):
        raise ForeignModelError(
            f"the network returns one tensor as {holders[0]!r} and others like it ({_names(rivals)}): whether these are exits "
            f"cannot be told. Return all exits in order as a list, alone or as {holders[0]!r}"
        )
    inner = _entries(logits)
    return (logits if inner is None else list(inner.values())), scores


def _hold(value: object, logits: Tensor) -> bool:
    """Return whether a value may be logits of exits: tensors like ``logits`` ``(B, classes)``, alone, in any form, or stacked."""
    if isinstance(value, Tensor):
        return value.shape[-2:] == logits.shape and value.ndim in (2, 3) and value.is_floating_point()
    entries = _entries(value)
    held = list(entries.values()) if entries is not None else value
    return isinstance(held, (list, tuple)) and any(isinstance(each, Tensor) and _hold(each, logits) for each in held)


def _names(entries: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(map(repr, entries)) or "nothing"


def _logits(outputs: object, batch: int) -> Tensor | Sequence[Tensor]:
    if isinstance(outputs, Tensor):
        logits = outputs if outputs.ndim == 3 else outputs[None]
        if outputs.ndim not in (2, 3) or logits.shape[1] != batch:
            raise ForeignModelError(_shape_text(tuple(outputs.shape), batch))
        return _checked(logits)
    if not isinstance(outputs, (list, tuple)) or not outputs:
        what = "an empty list" if isinstance(outputs, (list, tuple)) else type(outputs).__name__
        raise ForeignModelError(f"the network returns {what}; it must return {FORMS}")
    for k, logits in enumerate(outputs, start=1):
        if not isinstance(logits, Tensor):
            inside = "; gate scores have names: {'logits': [...], 'gates': [...]}" if isinstance(logits, (list, tuple)) else ""
            raise ForeignModelError(
                f"item {k} of what the network returns is {type(logits).__name__}; it must return {FORMS}{inside}"
            )
    shapes = [tuple(logits.shape) for logits in outputs]
    if any(len(shape) != 2 or shape[0] != batch for shape in shapes) or len(set(shapes)) > 1:
        raise ForeignModelError(
            f"the network returns tensors of shapes {', '.join(map(str, shapes))} for {batch} images; it must return {FORMS}, "
            "and nothing else (no features, no losses)"
        )
    return [_checked(logits) for logits in outputs]


def _checked(logits: Tensor) -> Tensor:
    if not logits.is_floating_point():
        raise ForeignModelError(f"the network returns {logits.dtype}; it must return logits, not predictions")
    if not logits.shape[-1]:
        raise ForeignModelError("the network returns logits of no class")
    return logits


def _shape_text(shape: Sequence[int], batch: int) -> str:
    hint = ""
    if len(shape) == 3 and shape[0] == batch:
        hint = "; where that is (B, exits, classes), return logits.transpose(0, 1)"
    elif len(shape) == 1:
        hint = "; a batch of one image is a batch, too (no squeeze)"
    return f"the network returns a tensor of shape {tuple(shape)} for {batch} images; it must return {FORMS}{hint}"


def _scores_in(scores: object) -> list[Any]:
    """Return the scores in a list or a dictionary; a None at the end stands for the last exit, which has no gate."""
    entries = _entries(scores)
    found = list(entries.values()) if entries is not None else scores
    if not isinstance(found, (list, tuple)):
        raise ForeignModelError(f"the network's gate scores are {type(scores).__name__}; they must be tensors, one per exit")
    return list(found[:-1] if found and found[-1] is None else found)


def _score(score: object, batch: int, what: str) -> Tensor:
    """Return the score ``(B,)`` of one gate."""
    if not isinstance(score, Tensor):
        raise ForeignModelError(f"{what} is {type(score).__name__}; it must be a tensor (B,) or (B, 1)")
    if tuple(score.shape) not in ((batch,), (batch, 1)):
        raise ForeignModelError(f"{what} has the shape {tuple(score.shape)} for {batch} images; it must be (B,) or (B, 1)")
    _refuse_decisions(score)
    return score.reshape(batch)


def _refuse_decisions(scores: Tensor) -> None:
    if not scores.is_floating_point():
        raise ForeignModelError(
            f"the network's gate scores are {scores.dtype}: decisions, in which attacks see no direction; return what they are "
            "made from, and leave the comparison to the exit rule, gate:THRESHOLD"
        )


def _flat(scores: Tensor) -> Tensor:
    """Return ``(K, B)`` or ``(B, K)`` without a last dimension of one; a single gate's ``(B,)`` becomes ``(1, B)``."""
    if scores.ndim == 1:
        return scores[None]
    return scores[..., 0] if scores.ndim == 3 and scores.shape[-1] == 1 else scores


def _laid_out(scores: object, layout: Layout) -> Sequence[Tensor]:
    """Return the score ``(B,)`` of each gate."""
    if not isinstance(scores, Tensor):
        return [score.reshape(len(score)) for score in _scores_in(scores)]
    return (_flat(scores) if layout == "exits first" else _flat(scores).mT).unbind(0)


def _count_text(found: int, n_exits: int) -> str:
    return f"the network returns {found} gate scores for {n_exits} exits; there must be one per exit, and the last may be missing"
