"""When Ctrl-C and SIGTERM may take effect."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGNALS: Final = {signal.SIGINT, signal.SIGTERM}


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Let interrupts wait until the block is left.

    For imports, which take a tenth of a second: modules that are interrupted while they are imported turn
    it into errors of their own.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def allowed_interrupts() -> Iterator[None]:
    """Let interrupts take effect within the block, whatever holds around it."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
