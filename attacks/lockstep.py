"""Several runs of somebody's attack at once, their questions to the network answered as one batch.

Packages that draw random numbers for the batch they are given must get their batches as they are. Where samples leave, these
shrink to a few images, which a network handles at a fraction of its speed. Here every run keeps its batch and its random
numbers, and whatever all of them ask next goes through the network together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Result = TypeVar("Result")


def run_batched(view: nn.Module, runs: Sequence[Callable[[nn.Module], Result]]) -> list[Result]:
    """What each of ``runs`` returns when it is given a stand-in for ``view``, in order.

    Every run has a thread, of which one at a time is awake, from its question to its next: a run need not be safe beside others.
    Its draws from torch's CPU generator are those it would make alone. ``view`` itself is only ever called from
    the caller's thread.

    Args:
        view: a classifier ``(B, C, H, W) -> (B, classes)``, each row for itself, on a CPU.
        runs: may ask for logits, with or without gradients with respect to the images.

    Raises:
        Exception: what a run or the network raises; the others are broken off.
    """
    waking = threading.Semaphore(0)
    workers = [_Worker(run, waking) for run in runs]
    random_state = torch.get_rng_state()
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
            worker.break_off()
        torch.set_rng_state(random_state)


@dataclass(frozen=True, eq=False)
class _Forward:
    """A question for logits: of images ``(B, C, H, W)``, with a graph to go back through or not."""

    x: Tensor
    with_graph: bool


@dataclass(eq=False)
class _Batch:
    """What went through the network together, to go back through once: images and logits of several runs."""

    x: Tensor
    logits: Tensor
    spent: bool = False

    @staticmethod
    def of(view: nn.Module, x: Tensor) -> _Batch:
        """The images on their way through the network."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return _Batch(x, view(x))


@dataclass(frozen=True, eq=False)
class _Backward:
    """A question for the images' gradient, given that of the logits: of some rows of a batch."""

    batch: _Batch
    rows: slice
    gradient: Tensor


class _BrokenOff(BaseException):
    """Ends a run whose answers nobody waits for; no ``except Exception`` of its code holds it up."""


class _Worker(Generic[Result]):
    """A run in its thread: awake between ``go_on`` and its next question."""

    def __init__(self, run: Callable[[nn.Module], Result], waking: threading.Semaphore) -> None:
        self.run, self.waking = run, waking
        self.turn = threading.Semaphore(0)
        self.question: Any
        self.answer: Any
        self.error: BaseException | None = None
        self.ended = self.unwanted = False
        self.random_state = torch.get_rng_state()
        self.with_gradients = torch.is_grad_enabled()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def go_on(self) -> None:
        """Let it run until it asks or ends; raises what it raised."""
        torch.set_rng_state(self.random_state)
        self.turn.release()
        self.waking.acquire()
        if self.error is not None:
            raise self.error

    def ask(self, question: _Forward | _Backward) -> Any:
        """From within the run: sleep until the question is answered."""
        self.question = question
        self.random_state = torch.get_rng_state()
        self.waking.release()
        self.turn.acquire()
        if self.unwanted:
            raise _BrokenOff
        return self.answer

    def break_off(self) -> None:
        """End the run if it has not; returns when its thread is gone."""
        self.unwanted = True
        self.turn.release()
        self.thread.join()

    def _work(self) -> None:
        self.turn.acquire()
        try:
            if not self.unwanted:
                with torch.set_grad_enabled(self.with_gradients):
                    self.result = self.run(_StandIn(self))
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the result
            self.error = error
        self.ended = True
        self.waking.release()


class _StandIn(nn.Module):
    """The network as a run sees it."""

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
    """Logits whose gradient with respect to the images is a question of its own."""

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
    """Answer what all of ``workers`` ask, in as few passes through ``view`` as there are kinds of questions."""
    plain = [worker for worker in workers if isinstance(worker.question, _Forward) and not worker.question.with_graph]
    graphs = [worker for worker in workers if isinstance(worker.question, _Forward) and worker.question.with_graph]
    if plain:
        with torch.no_grad():
            logits = view(torch.cat([worker.question.x for worker in plain]))
        for worker, rows in zip(plain, _rows(plain), strict=True):
            worker.answer = logits[rows].clone()
    if graphs:
        batch = _Batch.of(view, torch.cat([worker.question.x for worker in graphs]))
        for worker, rows in zip(graphs, _rows(graphs), strict=True):
            worker.answer = batch, rows
    back: dict[_Batch, list[_Worker[Any]]] = {}
    for worker in workers:
        if isinstance(worker.question, _Backward):
            back.setdefault(worker.question.batch, []).append(worker)
    for batch, asking in back.items():
        _answer_backward(view, batch, asking)


def _answer_backward(view: nn.Module, batch: _Batch, workers: Sequence[_Worker[Any]]) -> None:
    """Gradients for all who ask; who asks later than the others of its batch, or again, has its images sent through anew."""
    if batch.spent:
        for worker in workers:
            own = _Batch.of(view, batch.x[worker.question.rows])
            (worker.answer,) = torch.autograd.grad(own.logits, own.x, worker.question.gradient)
        return
    gradient = torch.zeros_like(batch.logits)
    for worker in workers:
        gradient[worker.question.rows] = worker.question.gradient
    # Not retained: compiled networks give their buffers away.
    (of_images,) = torch.autograd.grad(batch.logits, batch.x, gradient)
    batch.spent = True
    for worker in workers:
        worker.answer = of_images[worker.question.rows].clone()


def _rows(workers: Sequence[_Worker[Any]]) -> list[slice]:
    """Where each one's images stand among those of all."""
    rows, start = [], 0
    for worker in workers:
        rows.append(slice(start, start := start + len(worker.question.x)))
    return rows
