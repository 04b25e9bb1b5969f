"""What can go wrong, as types that name the file, the offset and the next thing to do."""

from __future__ import annotations


class HvshareError(Exception):
    """Any failure that a user can act on.

    Parameters
    ----------
    problem : str
        What is wrong, in one clause.
    path : str, optional
        The file concerned, as the user named it.
    offset : int, optional
        Byte of that file at which it showed.
    advice : str, optional
        The next thing to do.

    Examples
    --------
    >>> str(HvshareError("it is empty", path="a.raw", offset=0, advice="check the dump"))
    'a.raw: at byte 0: it is empty; check the dump'
    """

    def __init__(self, problem: str, *, path: str = "", offset: int | None = None, advice: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path
        self.offset = offset
        self.advice = advice

    def __str__(self) -> str:
        place = f"{self.path}: " if self.path else ""
        if self.offset is not None:
            place += f"at byte {self.offset:,}: "
        return place + self.problem + (f"; {self.advice}" if self.advice else "")

    def __reduce__(self) -> tuple[object, ...]:
        # Exception pickles positional arguments alone, and errors cross from worker processes.
        return (_rebuilt, (type(self), self.problem, self.path, self.offset, self.advice))


def _rebuilt(
    kind: type[HvshareError], problem: str, path: str, offset: int | None, advice: str
) -> HvshareError:
    return kind(problem, path=path, offset=offset, advice=advice)


class ImageError(HvshareError):
    """An input that cannot be used."""


class UnreadableImageError(ImageError):
    """The operating system does not let the image be opened or read."""


class EmptyImageError(ImageError):
    """The image holds no whole page."""


class UnsupportedImageError(ImageError):
    """The file is recognised, and is of a kind that cannot be read."""


class DamagedImageError(ImageError):
    """The file contradicts its own format."""


class TruncatedImageError(DamagedImageError):
    """The file ends before its format says it may."""


class ImageChangedError(ImageError):
    """The image changed its size, or went away, while it was read."""


class ResourceError(HvshareError):
    """The system does not give the command what it needs; no input is to blame."""


class WorkerError(HvshareError):
    """A worker process ended without an answer."""


class OutputError(HvshareError):
    """A result could not be written."""


class NoReaderError(OutputError):
    """Whoever read the result is gone."""


class SizeError(HvshareError, ValueError):
    """A size or frame size that cannot be used."""


class PresetError(HvshareError):
    """A description of a guest that cannot be used."""


class BudgetError(PresetError):
    """A guest that asks for more memory than it has."""
