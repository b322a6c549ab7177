"""Runs another package's attack on several batches at once and answers their queries to the network as one batch.

A package that draws random numbers per batch must get its batches unchanged. As samples leave, these shrink to a few images,
which a network computes at a fraction of its speed. Here every run keeps its batch and its random numbers, and the next
queries of all runs go through the network together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Result = TypeVar("Result")


def run_batched(view: nn.Module, runs: Sequence[Callable[[nn.Module], Result]]) -> list[Result]:
    """Call each of ``runs`` with a stand-in for ``view`` and return their results, in order.

    Every run has a thread, and one thread at a time is awake, from one query to the next: runs need not be thread-safe. Each run
    draws the same numbers from torch's generators as it would alone. ``view`` is only called from the caller's thread.

    Args:
        view: A classifier ``(B, C, H, W) -> (B, classes)``, in which rows do not interact.
        runs: Functions that query logits, with or without gradients with respect to the images.

    Raises:
        Exception: What a run or the network raises; the other runs are ended.
    """
    waking = threading.Semaphore(0)
    draws = _Draws(generators())
    random_state = draws.state()
    workers = [_Worker(run, waking, draws) for run in runs]
    try:
        waiting = workers
        while waiting:
            for worker in waiting:
                worker.go_on()
            waiting = [worker for worker in waiting if not worker.ended]
            _answer(view, waiting)
        return [worker.result for worker in workers]
    finally:
        for worker in workers:
            worker.stop()
        draws.restore(random_state)


def generators() -> list[torch.Generator]:
    """Return torch's generators that runs may draw from: the host's and, where a GPU is in use, its own."""
    if not _on_gpu():
        return [torch.default_generator]
    return [torch.default_generator, torch.cuda.default_generators[torch.cuda.current_device()]]


def _on_gpu() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


@dataclass(frozen=True, eq=False)
class _Draws:
    """Where some generators stand. Asking a GPU's takes no wait: its state is a seed and an offset that the host counts."""

    generators: Sequence[torch.Generator]

    def state(self) -> list[Tensor]:
        return [generator.get_state() for generator in self.generators]

    def restore(self, states: Sequence[Tensor]) -> None:
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state)


@dataclass(frozen=True, eq=False)
class _Forward:
    """A query for the logits of images ``(B, C, H, W)``, with or without a graph for the backward pass."""

    x: Tensor
    with_graph: bool


@dataclass(eq=False)
class _Batch:
    """The images and logits of several runs that went through the network together; one backward pass is possible."""

    x: Tensor
    logits: Tensor
    spent: bool = False

    @staticmethod
    def of(view: nn.Module, x: Tensor) -> _Batch:
        """Run the images through the network and keep the graph."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return _Batch(x, view(x))


@dataclass(frozen=True, eq=False)
class _Backward:
    """A query for the gradient of some rows of a batch with respect to the images, given that of the logits."""

    batch: _Batch
    rows: slice
    gradient: Tensor


class _RunEnded(BaseException):
    """Ends a run whose result is no longer needed; ``except Exception`` in its code does not catch it."""


class _Worker(Generic[Result]):
    """A run in its own thread; it is awake between ``go_on`` and its next query."""

    def __init__(self, run: Callable[[nn.Module], Result], waking: threading.Semaphore, draws: _Draws) -> None:
        self.run, self.waking, self.draws = run, waking, draws
        self.turn = threading.Semaphore(0)
        self.query: Any
        self.answer: Any
        self.error: BaseException | None = None
        self.ended = self.unwanted = False
        self.random_state = draws.state()
        self.with_gradients = torch.is_grad_enabled()
        self.stream = torch.cuda.current_stream() if _on_gpu() else None
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def go_on(self) -> None:
        """Let the run continue until its next query or its end; raise what it raised."""
        self.draws.restore(self.random_state)
        self.turn.release()
        self.waking.acquire()
        if self.error is not None:
            raise self.error

    def ask(self, query: _Forward | _Backward) -> Any:
        """Sleep until the query is answered, and return the answer; called from within the run."""
        self.query = query
        self.random_state = self.draws.state()
        self.waking.release()
        self.turn.acquire()
        if self.unwanted:
            raise _RunEnded
        return self.answer

    def stop(self) -> None:
        """End the run if it has not ended, and wait for its thread."""
        self.unwanted = True
        self.turn.release()
        self.thread.join()

    def _work(self) -> None:
        self.turn.acquire()
        try:
            if not self.unwanted:
                with self._as_caller():
                    self.result = self.run(_StandIn(self))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self.error = error
        self.ended = True
        self.waking.release()

    @contextmanager
    def _as_caller(self) -> Iterator[None]:
        """Compute as the caller would, with backward passes in this thread: in a GPU's own, no two runs could wait."""
        alone = torch.autograd.set_multithreading_enabled(False)
        with torch.set_grad_enabled(self.with_gradients), alone, torch.cuda.stream(self.stream):
            yield


class _StandIn(nn.Module):
    """The network as a run sees it: every forward pass is a query."""

    def __init__(self, worker: _Worker[Any]) -> None:
        super().__init__()
        self.worker = worker
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            logits: Tensor = _WithGraph.apply(x, self.worker)
            return logits
        answer: Tensor = self.worker.ask(_Forward(x, with_graph=False))
        return answer


class _WithGraph(torch.autograd.Function):
    """Logits whose gradient with respect to the images is a query of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, worker: _Worker[Any]) -> Tensor:
        ctx.worker = worker
        ctx.batch, ctx.rows = worker.ask(_Forward(x.detach(), with_graph=True))
        logits: Tensor = ctx.batch.logits[ctx.rows].detach().clone()
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.worker.ask(_Backward(ctx.batch, ctx.rows, gradient)), None


def _answer(view: nn.Module, workers: Sequence[_Worker[Any]]) -> None:
    """Answer the queries of all ``workers`` with one pass through ``view`` for each kind of query.

    Backward passes come first, and forward passes that will have one last: a recorded network (``exitbench.models.graphed``)
    has to repeat a forward pass that another came after.
    """
    back: dict[_Batch, list[_Worker[Any]]] = {}
    for worker in workers:
        if isinstance(worker.query, _Backward):
            back.setdefault(worker.query.batch, []).append(worker)
    for batch, asking in back.items():
        _answer_backward(view, batch, asking)
    plain = [worker for worker in workers if isinstance(worker.query, _Forward) and not worker.query.with_graph]
    graphs = [worker for worker in workers if isinstance(worker.query, _Forward) and worker.query.with_graph]
    if plain:
        with torch.no_grad():
            logits = view(torch.cat([worker.query.x for worker in plain]))
        for worker, rows in zip(plain, _rows(plain), strict=True):
            worker.answer = logits[rows].clone()
    if graphs:
        batch = _Batch.of(view, torch.cat([worker.query.x for worker in graphs]))
        for worker, rows in zip(graphs, _rows(graphs), strict=True):
            worker.answer = batch, rows


def _answer_backward(view: nn.Module, batch: _Batch, workers: Sequence[_Worker[Any]]) -> None:
    """Answer queries for gradients; images of a batch that has been back-propagated already go through the network again."""
    if batch.spent:
        for worker in workers:
            own = _Batch.of(view, batch.x[worker.query.rows])
            (worker.answer,) = torch.autograd.grad(own.logits, own.x, worker.query.gradient)
        return
    gradient = torch.zeros_like(batch.logits)
    for worker in workers:
        gradient[worker.query.rows] = worker.query.gradient
    # The graph is not retained: compiled networks free their buffers.
    (of_images,) = torch.autograd.grad(batch.logits, batch.x, gradient)
    batch.spent = True
    for worker in workers:
        worker.answer = of_images[worker.query.rows].clone()


def _rows(workers: Sequence[_Worker[Any]]) -> list[slice]:
    """Return the rows of each worker's images among those of all."""
    rows, start = [], 0
    for worker in workers:
        rows.append(slice(start, start := start + len(worker.query.x)))
    return rows
