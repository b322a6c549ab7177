"""Finds the state dicts inside what a checkpoint holds, and loads one into a network whatever wrappers stand before the names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from exitbench.models.tensor_kind import fault

State = Mapping[str, Any]
"""Tensors by name; under names that end in ``_extra_state`` a module may keep something else."""

UNDER = ("state_dict", "model_state_dict", "model", "net", "network", "module", "model.state_dict", "ema", "model_ema")
"""Keys under which training scripts store a state dict beside other things; the first that fits the network is taken."""

_IN_PARALLEL = frozenset({"module", "_orig_mod"})
"""Parts of names that ``DataParallel`` and ``torch.compile`` add."""

_WRAPPERS = _IN_PARALLEL | {"net", "model"}
"""These, and what the network is called in most modules that have another network inside."""

_DEPTH = 4


class StateError(ValueError):
    """A state dict does not fit a network; the message names up to three names of each kind."""


class TensorFault(StateError):
    """A tensor of a state dict cannot be taken as it is; the message names it and says why."""


def states_in(loaded: object) -> dict[str, State]:
    """Return every state dict in what a checkpoint holds, by its keys, such as ``model.state_dict``; "" is the whole of it."""
    found = dict(_states(loaded, (), _DEPTH))
    return {".".join(keys): state for keys, state in found.items()}


def _states(loaded: object, keys: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], State]]:
    if not isinstance(loaded, Mapping) or not depth:
        return
    if _is_state(loaded):
        yield keys, _with_text_names(loaded)
        return
    for key in UNDER:
        yield from _states(loaded.get(key), (*keys, key), depth - 1)


def _is_state(loaded: Mapping[Any, Any]) -> bool:
    tensors = [isinstance(value, Tensor) for name, value in loaded.items() if not str(name).endswith("_extra_state")]
    return bool(tensors) and all(tensors)


def _with_text_names(loaded: Mapping[Any, Any]) -> State:
    state = OrderedDict((str(name), value) for name, value in loaded.items())
    return _versioned(state, getattr(loaded, "_metadata", None))


def _versioned(state: OrderedDict[str, Any], metadata: object) -> State:
    """Attach what ``state_dict`` notes of the modules' versions, which old files of some modules are converted by."""
    if isinstance(metadata, Mapping):
        state._metadata = metadata  # type: ignore[attr-defined]
    return state


def fill(model: nn.Module, state: State) -> None:
    """Load ``state`` into ``model`` as ``load_state_dict`` does.

    The names are tried as they are; then without the wrappers (``module.``, ``_orig_mod.``, ``net.``, ``model.``, in any order)
    that stand before all of them, with those before all of the network's own; and then without ``module.`` and ``_orig_mod.``
    anywhere in them. Every name of the network must be found, and every name of the file used.

    Raises:
        TensorFault: If a tensor is quantised, sparse or without values, or of a type that is not the network's (see
            ``exitbench.models.tensor_kind.fault``). The network is then as it was.
        StateError: If no such names fit, or the shapes differ. The network is then as it was.
    """
    own = model.state_dict()
    before = {name: value.clone() for name, value in own.items() if isinstance(value, Tensor) and not is_lazy(value)}
    errors = []
    for renamed in _renamings(list(state), list(own)):
        candidate = _under(renamed, state)
        _refuse_faults(candidate, before, {new: old for old, new in renamed.items()})
        try:
            model.load_state_dict(candidate)
        except Exception as error:  # noqa: BLE001 - hooks of the modules may raise anything
            model.load_state_dict(before, strict=False)
            errors.append(_problems(model, candidate, error))
        else:
            return
    raise StateError(min(errors, key=lambda each: each[0])[1])


def _refuse_faults(candidate: State, own: Mapping[str, Tensor], in_file: Mapping[str, str]) -> None:
    for name, value in candidate.items():
        if isinstance(value, Tensor) and (why := fault(value, own.get(name))):
            raise TensorFault(f"the tensor {in_file[name]!r} {why}")


def _renamings(names: list[str], wanted: list[str]) -> Iterator[dict[str, str]]:
    """Yield the names to try for those of a file, by the file's own."""
    yield {name: name for name in names}
    ours, theirs = _leading(wanted), _leading(names)
    if ours != theirs:
        yield {name: ours + name.removeprefix(theirs) for name in names}
    known = _by(_bare(wanted), wanted)
    bare = _by(_bare(names), names)
    if known is not None and bare is not None:
        yield {name: known.get(short, name) for short, name in bare.items()}


def _leading(names: Iterable[str]) -> str:
    """Return the wrappers that stand before every name, such as ``module._orig_mod.``; never the whole of a name."""
    split = [name.split(".") for name in names]
    common: list[str] = []
    for parts in zip(*(each[:-1] for each in split), strict=False):
        if len(set(parts)) > 1 or parts[0] not in _WRAPPERS:
            break
        common.append(parts[0])
    return "".join(f"{part}." for part in common)


def _bare(names: list[str]) -> list[str]:
    inside = [".".join(part for part in name.split(".") if part not in _IN_PARALLEL) for name in names]
    first = _leading(inside)
    return [name.removeprefix(first) for name in inside]


def _by(keys: list[str], names: list[str]) -> dict[str, str] | None:
    """Return the names by their keys; None where two have the same key."""
    return dict(zip(keys, names, strict=True)) if len(set(keys)) == len(keys) else None


def _under(renamed: Mapping[str, str], state: State) -> State:
    """Return ``state`` under other names."""
    if all(new == old for old, new in renamed.items()):
        return state
    found = OrderedDict((renamed[name], value) for name, value in state.items())
    versions = getattr(state, "_metadata", None)
    if versions is None:
        return found
    return _versioned(found, {_owner(new): versions[_owner(old)] for old, new in renamed.items() if _owner(old) in versions})


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _problems(model: nn.Module, state: State, error: Exception) -> tuple[int, str]:
    """Return how many names do not fit, and which, in words."""
    wanted = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if isinstance(state.get(name), Tensor) and not is_lazy(tensor) and state[name].shape != tensor.shape
    ]
    kinds: dict[str, list[str]] = {"missing": missing, "unexpected": unexpected, "other shapes:": shapes}
    said = "; ".join(f"{kind} {_some(names)}" for kind, names in kinds.items() if names)
    return len(missing) + len(unexpected) + len(shapes), said or " ".join(str(error).split())


def _some(names: list[str], n: int = 3) -> str:
    more = f" and {len(names) - n} more" if len(names) > n else ""
    return ", ".join(names[:n]) + more
