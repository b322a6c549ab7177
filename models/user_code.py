"""Keeps torch's global state and the process ours around every call into code that is not ours, and hands it copies of images.

``contained`` is for imports, factories, loaders and attacks; ``forwarded``, which costs about ten microseconds, for forwards.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import isgeneratorfunction
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from exitbench.models.error_text import first_line
from exitbench.models.errors import InputError
from exitbench.models.own_code import is_own


class EndedByUserCode(InputError, RuntimeError):
    """Code that is not ours raised an exception that ends a process; it is an error of that code, and sets no exit code."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"{first_line(error)}, which would have ended the process without a result")


def _refuse_to_end(error: BaseException | None) -> None:
    """Raise ``EndedByUserCode`` for what ``except Exception`` does not catch, but for interrupts and what we raise ourselves."""
    if error is None or isinstance(error, (Exception, KeyboardInterrupt, GeneratorExit)) or is_own(type(error).__module__):
        return
    raise EndedByUserCode(error) from error


class _Flags(NamedTuple):
    """The global settings of torch that change what is computed, or how fast."""

    gradients: bool
    dtype: torch.dtype
    threads: int
    deterministic: bool
    warn_only: bool
    matmul: str
    cudnn: tuple[bool, bool, bool, bool] | None


def _on_gpu() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _flags() -> _Flags:
    cudnn = torch.backends.cudnn
    return _Flags(
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_float32_matmul_precision(),
        (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) if _on_gpu() else None,
    )


def _restore(wanted: _Flags) -> None:
    """Set what was changed; nothing where nothing was."""
    now = _flags()
    if now == wanted:
        return
    torch.set_grad_enabled(wanted.gradients)
    torch.set_default_dtype(wanted.dtype)
    torch.use_deterministic_algorithms(wanted.deterministic, warn_only=wanted.warn_only)
    torch.set_float32_matmul_precision(wanted.matmul)
    if now.threads != wanted.threads:
        torch.set_num_threads(wanted.threads)
    if wanted.cudnn is not None:
        cudnn = torch.backends.cudnn
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = wanted.cudnn


@contextmanager
def contained() -> Iterator[None]:
    """Run somebody's code with gradients on and fp32 as default type, and restore torch's settings and all random states."""
    flags, device = _flags(), torch.get_default_device()
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if _on_gpu() else []):
        try:
            torch.set_grad_enabled(True)
            torch.set_default_dtype(torch.float32)
            yield
        except BaseException as error:
            _refuse_to_end(error)
            raise
        finally:
            _restore(flags)
            if torch.get_default_device() != device:
                torch.set_default_device(None if device.type == "cpu" else device)
            random.setstate(python)
            np.random.set_state(numpy)


class _Forwards:
    """What forwards leave behind: the random numbers that networks draw are a stream of their own.

    A network that draws them is so never given the same ones twice, and one that seeds does not seed the attacks.

    Attributes:
        inside: whether a forward is going on.
        stream: state of the CPU's generator for networks; None until one draws.
    """

    inside = False
    stream: Tensor | None = None


class forwarded:  # noqa: N801 - used like a function
    """A context for a forward of somebody's network: torch's settings and the CPU's random state are restored behind it.

    Args:
        training: whether the network is in training mode. It is then trained by us, draws from our random numbers as a resumed
            training must, and nothing is restored.
    """

    __slots__ = ("_flags", "_outer", "_random", "_training")

    def __init__(self, *, training: bool = False) -> None:
        self._training = training

    def __enter__(self) -> None:
        self._outer = _Forwards.inside or self._training
        if self._outer:
            return
        _Forwards.inside = True
        self._flags, self._random = _flags(), torch.default_generator.get_state()
        if _Forwards.stream is not None:
            torch.default_generator.set_state(_Forwards.stream)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._outer:
            return
        self._leave()
        _refuse_to_end(error)

    def _leave(self) -> None:
        _Forwards.inside = False
        _restore(self._flags)
        now, began = torch.default_generator.get_state(), self._random if _Forwards.stream is None else _Forwards.stream
        if _bytes_of(now) != _bytes_of(began):
            _Forwards.stream = now
        if _Forwards.stream is not None:
            torch.default_generator.set_state(self._random)


def _bytes_of(state: Tensor) -> bytes:
    """Return the bytes of a generator's state, read without an operator of torch: a dispatch mode may be active."""
    return ctypes.string_at(state.data_ptr(), state.numel())


def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method ``(self, x, ...)`` of somebody's network that is handed a copy of ``x`` and leaves torch's state alone."""
    if isgeneratorfunction(method):

        @wraps(method)
        def generating(self: Any, x: Tensor, *others: Any, **named: Any) -> Iterator[Any]:
            steps = method(self, x.clone(), *others, **named)
            while True:
                with forwarded():
                    found = next(steps, steps)
                if found is steps:
                    return
                yield found

        return generating

    @wraps(method)
    def calling(self: Any, x: Tensor, *others: Any, **named: Any) -> Any:
        with forwarded():
            return method(self, x.clone(), *others, **named)

    return calling
