"""Where ``hvshare`` and ``python -m hvshare`` start."""

from __future__ import annotations

import gc
import os
import signal
import sys


def main() -> None:
    """Run the command line and end the process."""
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


if __name__ == "__main__":
    main()
