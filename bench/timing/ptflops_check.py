"""Checks costs against ptflops, which counts the whole network in one figure."""

from __future__ import annotations

import contextlib
import io
import warnings

from torch import nn

from exitbench.errors import UserError
from exitbench.models.error_text import first_line


def ptflops_mmacs(model: nn.Module, input_shape: tuple[int, int, int]) -> float:
    """Count the 10^6 multiply-accumulates of one forward pass with ptflops' aten backend.

    Raises:
        UserError: If ptflops gives no figure (it prints and returns None when a forward pass fails), or fails itself.
    """
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of torch, at what ptflops imports
        from ptflops import get_model_complexity_info

    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            macs, _ = get_model_complexity_info(
                model, input_shape, as_strings=False, print_per_layer_stat=False, backend="aten", ost=said
            )
    except Exception as error:  # a user's network in another package's counter may raise anything
        raise UserError(f"ptflops could not count the model: {first_line(error)}") from error
    if macs is None:
        raise UserError(f"ptflops could not count the model: {said.getvalue().strip()}")
    return float(macs) / 1e6
