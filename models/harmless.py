"""Types that training scripts keep beside tensors, and are harmless to read: NumPy's numbers, options, paths, dates."""

from __future__ import annotations

import datetime
from argparse import Namespace
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy._core import multiarray

Allowed = Callable[..., Any] | tuple[Callable[..., Any], str]

_NUMBERS = ("Bool", "Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float16", "Float32", "Float64")
"""Data types of arrays and scalars; those that contain Python objects are left out."""


def harmless_types() -> list[Allowed]:
    """Return what a pickle may name beside tensors, in the form of ``torch.serialization.safe_globals``.

    A path is read as a pure one, which touches no file system.
    """
    texts = (np.dtypes.StrDType, np.dtypes.BytesDType)
    dtypes = [*(getattr(np.dtypes, f"{name}DType") for name in _NUMBERS), *texts]
    functions = {"scalar": multiarray.scalar, "_reconstruct": multiarray._reconstruct}
    numpys = [(found, f"{core}.multiarray.{name}") for core in ("numpy.core", "numpy._core") for name, found in functions.items()]
    pure = {"Posix": PurePosixPath, "Windows": PureWindowsPath}
    paths = [
        (found, f"{module}.{prefix}{system}Path")
        for module in ("pathlib", "pathlib._local")
        for system, found in pure.items()
        for prefix in ("", "Pure")
    ]
    dates = [datetime.datetime, datetime.date, datetime.timedelta]
    return [Namespace, SimpleNamespace, np.dtype, np.ndarray, *dtypes, *numpys, *paths, *dates]
