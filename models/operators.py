"""What one call of a torch operator costs: a formula, nothing by convention, or unknown.

The convention is that of the field's counters: products of matrices, convolutions and what is made of them are counted;
arithmetic on single elements, sums, norms, pooling, interpolation and moving data are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

FREE = {
    "views and copies": (
        "*_copy alias clone contiguous copy detach lift* _reshape_alias _to_copy _to_dense _unsafe_view as_strided* "
        "reshape resize* _resize_output set to_padded_tensor unsafe_chunk unsafe_split* squeeze unsqueeze transpose t "
        "swapaxes _pin_memory is_pinned _local_scalar_dense is_same_size item _has_same_storage_numel _copy_from* view*"
    ),
    "joining and repeating": (
        "cat stack _stack _chunk_cat block_diag repeat repeat_interleave tile roll flip rot90 channel_shuffle "
        "pixel_shuffle pixel_unshuffle col2im im2col constant_pad_nd reflection_pad?d replication_pad?d"
    ),
    "new tensors": (
        "empty* zeros* ones* full* new_* arange linspace logspace range eye rand* normal* bernoulli* uniform exponential "
        "geometric cauchy log_normal random multinomial poisson scalar_tensor tril_indices triu_indices zero fill "
        "*_window complex polar affine_grid_generator"
    ),
    "taking, putting and sorting": (
        "gather scatter* index* _index_put_impl _unsafe_index* _unsafe_masked_index* masked_* take put select_scatter "
        "slice_scatter diagonal_scatter diag_embed tril triu embedding embedding_renorm _embedding_bag* sort topk "
        "kthvalue median nanmedian mode nonzero* unique* _unique* bucketize searchsorted histc bincount isin"
    ),
    "reductions": (
        "sum nansum mean prod all any amax amin aminmax _aminmax argmax argmin max min std std_mean var var_mean norm "
        "native_norm linalg_vector_norm linalg__powsum logsumexp count_nonzero cumsum cumprod cummax cummin "
        "_cummax_helper _cummin_helper logcumsumexp _logcumsumexp trace dist equal allclose _is_all_true _is_any_true "
        "segment_reduce"
    ),
    "pooling": ("*max_pool* *avg_pool* *max_unpool*"),
    "normalisation": ("*batch_norm* native_group_norm native_layer_norm _fused_rms_norm renorm _weight_norm_interface"),
    "interpolation": ("*upsample_* *grid_sampler*"),
    "activations": (
        "_softmax _log_softmax _safe_softmax _masked_softmax glu rrelu_with_noise log_sigmoid_forward hardswish "
        "_prelu_kernel *dropout* _masked_scale"
    ),
    "elementwise arithmetic": (
        "_foreach_* _add_relu _thnn_fused_lstm_cell _thnn_fused_gru_cell linalg_cross floor_divide fake_quantize_* "
        "_fake_quantize_* _transform_bias_rescale_qkv"
    ),
    "losses": ("*_loss *_loss_forward *_loss2d_forward binary_cross_entropy*"),
    "quantised numbers": ("quantize_per_* dequantize int_repr q_*"),
    "checks and metadata": (
        "_assert* _functional_assert* _linalg_check_errors _functional_sym_constrain_range* _pack_padded_sequence record_stream"
    ),
}
"""Operators of aten that count as no multiply-accumulates, by family; patterns as of ``fnmatch``, separated by blanks.

Views, and whatever torch tags as pointwise, count as none as well."""

_FREE = tuple(" ".join(FREE.values()).split())

Call = Callable[[Sequence[Any], Any], int]
"""From the positional arguments and the result of a call to its multiply-accumulates."""


def _convolution(args: Sequence[Any], out: Any) -> int:
    return int(out.numel() * args[1][0].numel())


def _transposed(args: Sequence[Any], out: Any) -> int:
    return int(args[0].numel() * args[1][0].numel())


def _recurrent(args: Sequence[Any], out: Any) -> int:
    """Every weight matrix is used once for every step of every sequence."""
    steps = int(args[0].numel() // args[0].shape[-1])
    return steps * sum(weight.numel() for weight in recurrent_weights(args))


def recurrent_weights(args: Sequence[Any]) -> list[Tensor]:
    """Return the weight matrices among the arguments of a fused recurrent layer."""
    given = args[1] if isinstance(args[1], (list, tuple)) else args[1:3]
    return [weight for weight in given if weight.ndim == 2]


def _trilinear(args: Sequence[Any], out: Any) -> int:
    """A product of three tensors, summed: each product of the first two (the elementwise part) meets the third once."""
    sizes = []
    for tensor, expanded in zip(args[:3], args[3:6], strict=True):
        shape = list(tensor.shape)
        for dimension in sorted(expanded):
            shape.insert(dimension, 1)
        sizes.append(shape)
    return math.prod(max(each) for each in zip(*sizes, strict=True))


def _distances(args: Sequence[Any], out: Any) -> int:
    return int(out.numel() * args[0].shape[-1])


def _linear(args: Sequence[Any], out: Any) -> int:
    return int(args[0].numel() * out.shape[-1])


_CONVOLUTIONS = (
    "mkldnn_convolution cudnn_convolution_relu cudnn_convolution_add_relu miopen_convolution miopen_convolution_relu "
    "miopen_depthwise_convolution _conv_depthwise2d conv_depthwise3d slow_conv3d_forward slow_conv_dilated2d slow_conv_dilated3d "
    "_mps_convolution _nnpack_spatial_convolution"
)
_TRANSPOSED = "cudnn_convolution_transpose miopen_convolution_transpose slow_conv_transpose2d slow_conv_transpose3d"

FORMULAS: dict[str, Call] = {
    "aten.mv": lambda args, out: args[0].numel(),
    "aten.addmv": lambda args, out: args[1].numel(),
    "aten.dot": lambda args, out: args[0].numel(),
    "aten.vdot": lambda args, out: args[0].numel(),
    "aten.addr": lambda args, out: out.numel(),
    "aten.addbmm": lambda args, out: args[1].numel() * args[2].shape[-1],
    "aten._int_mm": _linear,
    "aten.hspmm": _linear,
    "aten._addmm_activation": lambda args, out: args[1].numel() * args[2].shape[-1],
    "aten._weight_int8pack_mm": _linear,
    "aten.mkldnn_linear": _linear,
    "aten.conv_tbc": lambda args, out: out.numel() * args[1].shape[0] * args[1].shape[1],
    "aten._trilinear": _trilinear,
    "aten._cdist_forward": _distances,
    "aten._euclidean_dist": _distances,
    "aten._pdist_forward": _distances,
    "aten.mkldnn_rnn_layer": _recurrent,
    "aten._cudnn_rnn": _recurrent,
    "aten.miopen_rnn": _recurrent,
    "quantized.linear": _linear,
    "quantized.linear_relu": _linear,
    "quantized.linear_dynamic": _linear,
    "quantized.linear_relu_dynamic": _linear,
    "torchvision.deform_conv2d": _convolution,
    **{f"aten.{name}": _convolution for name in _CONVOLUTIONS.split()},
    **{f"aten.{name}": _transposed for name in _TRANSPOSED.split()},
}
"""The multiply-accumulates of operators that ``torch.utils.flop_counter`` has no formula for."""


def operator_name(func: Any) -> str:
    """Return the name without overload, such as ``aten.mm``; the form that works in place has the name of the other."""
    space, found, name = str(func.name()).partition("::")
    if not found:
        return space
    name = name.partition(".")[0]
    changes = name.endswith("_") and not name.endswith("__") and space == "aten"
    return f"{space}.{name[:-1] if changes else name}"


def macs_of(func: Any, args: Any, kwargs: Any, out: Any) -> int | None:
    """Return the multiply-accumulates of one call of an operator, 0 where they are none by convention, None if unknown.

    Formulas that a user registers with ``torch.utils.flop_counter.register_flop_formula`` are taken.
    """
    name = operator_name(func)
    space, _, base = name.partition(".")
    registered = flop_registry.get(getattr(func, "_overloadpacket", func))
    if registered is None and space == "aten":
        registered = flop_registry.get(getattr(torch.ops.aten, base, None))
    try:
        if registered is not None:
            return int(registered(*args, **kwargs, out_val=out)) // 2
        if name in FORMULAS:
            return int(FORMULAS[name](_positional(func, args, kwargs), out))
    except Exception:  # noqa: BLE001 - a formula of torch's or of the user's that cannot read a call knows no cost of it
        return None
    return 0 if space in ("aten", "prim") and _is_free(func, base, args, kwargs) else None


def is_convolution(func: Any) -> bool:
    """Return whether an operator is a convolution."""
    return "conv" in operator_name(func)


def _is_free(func: Any, base: str, args: Any, kwargs: Any) -> bool:
    if torch.Tag.pointwise in func.tags or func.is_view or any(fnmatchcase(base, pattern) for pattern in _FREE):
        return True
    return not any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, kwargs)))


def _positional(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """Return the arguments of a call in the order of the operator's schema."""
    return [*args, *_named(func, len(args), kwargs)]


def _named(func: Any, given: int, kwargs: Any) -> Iterator[Any]:
    for argument in func._schema.arguments[given:]:
        yield kwargs.get(argument.name, argument.default_value)
