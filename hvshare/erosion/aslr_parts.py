"""Columns that tasks find in several processes, put together once at the end."""

from __future__ import annotations

from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from hvshare.sharing.range_pool import add_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray


class Columns(Protocol):
    """A named tuple of arrays."""

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Give the arrays."""


C = TypeVar("C", bound=Columns)


class _Parts(Generic[C]):
    """What tasks have found: a list, since joining arrays each time would copy all of them again."""

    def __init__(self, found: list[tuple[int, C]]) -> None:
        self.found = found

    def __add__(self, other: _Parts[C]) -> _Parts[C]:
        return _Parts(self.found + other.found)

    def __reduce__(self) -> tuple[Callable[..., _Parts[C]], tuple[Any, ...]]:
        """Send few large arrays: many small ones would leave the heap of the receiver in pieces."""
        numbers, parts = [number for number, _ in self.found], [part for _, part in self.found]
        lengths = [[len(column) for column in part] for part in parts]
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return _taken_apart, (type(parts[0]), numbers, lengths, columns)


def collect(
    tasks: Sequence[Callable[[], C]], empty: C, jobs: int, on_done: Callable[[int], None] | None = None
) -> C:
    """Do tasks in several processes and put together the columns that they find.

    Parameters
    ----------
    tasks : sequence of callable
        Each gives a named tuple of arrays.
    empty : named tuple of ndarray
        The same without rows.
    jobs : int
        Processes at the most.
    on_done : callable, optional
        Receives how many more tasks are done.

    Returns
    -------
    named tuple of ndarray
        The rows of all tasks, in the order of these however many processes there are.

    Raises
    ------
    WorkerError
        If a process ends without having done its work.
    """
    numbered = [partial(_as_part, number, task) for number, task in enumerate(tasks)]
    # A single task is done sooner than a process is started for it.
    jobs = min(jobs, len(tasks))
    found = add_up([[*numbered, partial(_Parts, [(len(tasks), empty)])]], jobs, on_done).found
    found.sort(key=itemgetter(0))
    columns = [list(column) for column in zip(*(part for _, part in found), strict=True)]
    del found
    # One after the other, so that no more than one column is there twice.
    return type(empty)(*(_joined(column) for column in columns))


def _taken_apart(
    kind: Callable[..., C], numbers: list[int], lengths: list[list[int]], columns: list[NDArray[Any]]
) -> _Parts[C]:
    ends = np.cumsum(lengths, axis=0)[:-1]
    parts = zip(*(np.split(column, end) for column, end in zip(columns, ends.T, strict=True)), strict=True)
    return _Parts([(number, kind(*part)) for number, part in zip(numbers, parts, strict=True)])


def _as_part(number: int, task: Callable[[], C]) -> _Parts[C]:
    return _Parts([(number, task())])


def _joined(column: list[NDArray[Any]]) -> NDArray[Any]:
    joined = np.concatenate(column)
    column.clear()
    return joined
