"""The one place where errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from typing import TYPE_CHECKING, Final, NoReturn

import click

from hvshare.cli.commands import hvshare
from hvshare.cli.interrupts import allowed_interrupts
from hvshare.cli.options import say
from hvshare.errors import HvshareError, NoReaderError, OutputError

if TYPE_CHECKING:
    from types import FrameType

EXIT_UNUSABLE: Final = 1
EXIT_INTERRUPTED: Final = 128 + signal.SIGINT
EXIT_NO_READER: Final = 128 + signal.SIGPIPE
EXIT_TERMINATED: Final = 128 + signal.SIGTERM


class _TerminatedError(BaseException):
    """SIGTERM has come; nothing but the end of the command may catch it."""


def run(arguments: list[str] | None = None) -> int:  # noqa: PLR0912  # a branch for each way to end
    """Run the command line.

    Parameters
    ----------
    arguments : list of str, optional
        Those of the process by default.

    Returns
    -------
    int
        The exit code: 0 done; 1 an input could not be used, or the result not be written; 2 wrong usage;
        3 done without some inputs; 130 after Ctrl-C; 141 when nobody reads standard output any more; 143
        after SIGTERM.
    """
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal's encoding lacks is shown escaped rather than ending the report.
            stream.reconfigure(errors="backslashreplace")
    try:
        with allowed_interrupts():
            return hvshare.main(arguments, prog_name="hvshare", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except NoReaderError:
        _forget_output()
        return EXIT_NO_READER
    except OutputError as error:
        _forget_output()
        return _failed(str(error))
    except HvshareError as error:
        return _failed(str(error))
    except _TerminatedError:
        return EXIT_TERMINATED
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted", EXIT_INTERRUPTED)
    except SystemExit as error:
        # click ends so after shell completion, and when nobody reads its help.
        if isinstance(error.__context__, BrokenPipeError):
            return EXIT_NO_READER
        return error.code if isinstance(error.code, int) else EXIT_UNUSABLE
    except MemoryError:
        return _failed("out of memory; give it fewer images at once, or fewer --jobs")
    except OSError as error:
        _forget_output()
        return _failed(f"{error.strerror or error}; check what standard output is")
    except Exception as error:
        if os.environ.get("HVSHARE_DEBUG"):
            raise
        return _failed(
            f"unexpected {type(error).__name__}: {error}; this is a defect: please report it with what "
            "HVSHARE_DEBUG=1 prints"
        )


def _failed(message: str) -> int:
    return _say(f"error: {message}", EXIT_UNUSABLE)


def _say(message: str, code: int) -> int:
    say(message)
    return code


def _forget_output() -> None:
    """Give up what standard output still holds: the interpreter would complain of it at the end."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _TerminatedError
