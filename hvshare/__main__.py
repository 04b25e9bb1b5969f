"""Where ``hvshare`` and ``python -m hvshare`` start."""

from __future__ import annotations

import gc
import os
import signal
import sys


def main() -> None:
    """Run the command line and end the process."""
    _fill_closed_descriptors()
    # Without arithmetic to spread over them, the threads of OpenBLAS only cost time and memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A command is over before garbage in cycles would matter; looking for it takes a twentieth of its time.
    gc.disable()
    # Interrupts wait while modules are imported, and again while the interpreter ends.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    from hvshare.cli.running import run

    code = run()
    gc.freeze()
    sys.exit(code)


def _fill_closed_descriptors() -> None:
    """See to it that no image is opened as standard input, output or error.

    What is written to a closed output still fails, since it is opened for reading.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")


if __name__ == "__main__":
    main()
