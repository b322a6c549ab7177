"""What a stranger puts into files: hypothesis strategies that change JSON values, arrays and bytes of good ones."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

Change = Callable[[Any], Any]

STRINGS = (
    *("", "x", "..", "../../somewhere/x", "/etc/passwd", "/x/../../y", "a/b", "a\\b", "C:\\x", "CON", "nul.json", "~root"),
    *("\0", "a\0b", "a\nb", "::error::x", "\x1b[2J\x1b[31mred", "\u202egnp.exe", "a\u200bb", "\ud800", "e\u0301", "\u200f"),
    *("0" * 63, "0" * 65, "G" * 64, "\uff10" * 64, "\uff10" * 64, f"{'0' * 64}\n", "\uff21" * 64, "../" * 21 + "x"),
    *("nan", "inf", "1e999", "-1", "True", "null", "L9", "linf", "exit:0", "exit:\uff19", "exit:99999999999", "entropy:nan"),
    *("entropy:1_0,2", "entropy:" + "1," * 2000, "confidence:", "single:\uff11", "$\\frac$", "{{x}}", "%s%n", "=1+1", "a" * 5000),
)
NUMBERS = (
    *(0, 1, -1, 2, 31, 33, 64, 10**11, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, -(10**30), 10**400),
    *(0.5, -0.5, 1e-320, 1e16, 1e300, -1e300, 1.7e308, float("nan"), float("inf"), float("-inf")),
)
SHAPES = (None, True, False, [], {}, [[]], [None], {"": None}, {"type": None}, {"type": "PGD"}, [1, "a", None], {"schema": 2})


def nested(depth: int) -> Any:
    """Lists in lists."""
    found: Any = 0
    for _ in range(depth):
        found = [found]
    return found


values = st.one_of(
    st.sampled_from(STRINGS),
    st.sampled_from(NUMBERS),
    st.sampled_from(SHAPES).map(copy.deepcopy),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.integers(90, 110).map(nested),
    st.just("@deep@"),
)


def places(content: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in JSON values, its own included."""
    if len(at) > 20:
        return [at]
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [at, *(path for name, each in inside for path in places(each, (*at, name)))]


@st.composite
def json_changes(draw: st.DrawFn) -> Change:
    """One to three changes of JSON values: a value replaced, left out, doubled, or one more field."""
    steps = draw(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from("rrrrdmn"), values), min_size=1, max_size=3))

    def changed(content: Any) -> Any:
        content = copy.deepcopy(content)
        for number, kind, value in steps:
            paths = places(content)
            path = paths[number % len(paths)]
            if not path:
                content = value if number % 50 == 0 else content
                continue
            owner = content
            for name in path[:-1]:
                owner = owner[name]
            _change(owner, path[-1], kind, value)
        return content

    return changed


def _change(owner: Any, name: Any, kind: str, value: Any) -> None:
    if kind == "r":
        owner[name] = value
    elif kind == "d":
        del owner[name]
    elif kind == "n" and isinstance(owner, dict):
        owner[str(value)[:20]] = value
    elif isinstance(owner, list):
        owner.insert(name, copy.deepcopy(owner[name]))
    else:
        owner[name] = [owner[name], owner[name]]


def texts_of(content: Any) -> bytes:
    """The text of JSON values, NaN and half characters included; what stands for a value that is nested deeply becomes one."""
    return json.dumps(content).encode().replace(b'"@deep@"', b"[" * 5000 + b"]" * 5000)


ARRAY_CHANGES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "float64": lambda array: array.astype(np.float64),
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "object": lambda array: array.astype(object),
    "text": lambda array: array.astype("U8"),
    "complex": lambda array: array.astype(np.complex64),
    "bool": lambda array: array.astype(np.bool_),
    "one row fewer": lambda array: array[1:],
    "twice the rows": lambda array: np.concatenate([array, array]),
    "no rows": lambda array: array[:0],
    "one more dimension": lambda array: array[None],
    "no dimension": lambda array: array.reshape(-1)[:1].reshape(()),
    "turned": lambda array: array.T,
    "by columns": np.asfortranarray,
    "broadcast": lambda array: np.zeros((2, *array.shape), array.dtype),
    "shifted": lambda array: array + np.ones((), array.dtype),
    "negative": lambda array: (0 - array).astype(array.dtype) - np.ones((), array.dtype),
    "huge": lambda array: np.full_like(array, np.finfo(array.dtype).max if array.dtype.kind == "f" else np.iinfo(np.int64).max),
    "nan": lambda array: np.full_like(array, np.nan if array.dtype.kind == "f" else 0),
    "backwards": lambda array: array[::-1],
}


@st.composite
def array_changes(draw: st.DrawFn) -> Change:
    """One or two changes of the arrays of an npz file, its JSON header among them."""
    steps = draw(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from([*ARRAY_CHANGES, "gone", "more"])), max_size=2))
    header = draw(json_changes()) if draw(st.booleans()) or not steps else None

    def changed(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        arrays = dict(arrays)
        if header is not None:
            text = texts_of(header(json.loads(arrays["header"].tobytes())))
            arrays["header"] = np.frombuffer(text, np.uint8)
        for number, kind in steps:
            names = sorted(arrays)
            name = names[number % len(names)]
            if kind == "gone":
                del arrays[name]
            elif kind == "more":
                arrays[f"{name}x"] = arrays[name]
            else:
                with np.errstate(all="ignore"):
                    arrays[name] = _tried(ARRAY_CHANGES[kind], arrays[name])
        return arrays

    return changed


def _tried(change: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
    try:
        return change(array)
    except (TypeError, ValueError, OverflowError, IndexError):
        return array


def arrays_in(raw: bytes) -> dict[str, np.ndarray]:
    """The arrays of an npz file."""
    with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The npz file of arrays, those of objects pickled."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@st.composite
def byte_changes(draw: st.DrawFn) -> Change:
    """What happens to a file: cut, flipped bits, bytes overwritten, inserted or doubled, another file altogether."""
    kind = draw(st.sampled_from(["cut", "flip", "overwrite", "insert", "double", "other"]))
    where = draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4))
    some = draw(st.binary(min_size=1, max_size=40))

    def damaged(raw: bytes) -> bytes:
        content = bytearray(raw)
        for share in where:
            at = int(share * len(content))
            if kind == "cut":
                return bytes(content[:at])
            if kind == "other":
                return some
            if kind == "flip":
                content[at] ^= 1 << (some[0] % 8)
            elif kind == "overwrite":
                content[at : at + len(some)] = some
            elif kind == "insert":
                content[at:at] = some
            else:
                content[at:at] = content[at : at + 64]
        return bytes(content)

    return damaged
