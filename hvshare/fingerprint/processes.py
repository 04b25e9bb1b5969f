"""The start of forked processes, which must neither be interrupted half-way nor leave anything behind."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

from hvshare.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def starting_processes(stop: Callable[[], None]) -> Iterator[None]:
    """Start processes within the block; on any failure those that were started are stopped.

    Interrupts wait: a process must not see Ctrl-C before it ignores it, since the terminal sends it to the
    whole group.

    Parameters
    ----------
    stop : callable
        Ends all processes that were started.

    Raises
    ------
    WorkerError
        If the system does not let one be started.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    except OSError as error:
        stop()
        raise WorkerError(
            f"worker processes cannot be started ({error.strerror})", advice="try fewer --jobs"
        ) from error
    except BaseException:
        stop()
        raise
