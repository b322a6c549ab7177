"""A dispatch mode that does not load torch's compiler."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class OperatorMode(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves its hook untyped
    """A ``TorchDispatchMode`` whose ``__torch_dispatch__`` runs as it is written.

    torch keeps its compiler out of these hooks, and imports ``torch._dynamo`` to do so at the first operator: some seconds in
    which nothing is evaluated. What is watched here is not compiled.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
