"""Memory that lies flat in one file, at addresses that another file tells."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hvshare.caveats import Caveat
from hvshare.errors import UnsupportedImageError
from hvshare.images.raw import holes_are_zero
from hvshare.images.runs import RunKind
from hvshare.images.segments import describe_range, lay_out, without_holes
from hvshare.images.stored import StoredImage
from hvshare.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hvshare.images.opening import Opening
    from hvshare.images.segments import Segment
    from hvshare.images.source import Source

LEAST_HOLE: Final = 3 << 30
"""No hypervisor for PCs puts the hole for devices below 4 GiB lower than this."""

_SHOWN: Final = 4


def flat_image(opening: Opening, source: Source, segments: Iterable[Segment]) -> StoredImage:
    """Make an image of segments of a file, with its holes told apart.

    Parameters
    ----------
    opening : Opening
        Gives the name and what holes mean.
    source : Source
        The file that holds the memory.
    segments : iterable of Segment
        Where its bytes belong, and what is elsewhere.

    Returns
    -------
    StoredImage
        With a caveat if holes count as zero pages.

    Raises
    ------
    DamagedImageError
        If segments overlap or do not lie within the file.
    UnsupportedImageError
        If nothing is left to measure, since all of the file is holes that are absent.
    """
    layout = without_holes(lay_out(segments, source), source, opening.options.holes)
    if layout.runs.pages_of(RunKind.ABSENT) == layout.runs.pages:
        raise UnsupportedImageError(
            "no page of the guest is stored in it, so there is nothing to measure",
            path=source.path,
            advice="leave --holes at zero, or name the full snapshot",
        )
    image = StoredImage(opening.name, source, layout.runs, layout.extents)
    image.caveats += layout.caveats(opening.name)
    if hole_pages := layout.runs.pages_of(RunKind.ZERO):
        image.caveats.append(holes_are_zero(hole_pages, opening.name))
    return image


def addresses_are_linear(size: int, name: str) -> list[Caveat]:
    """Say that memory was placed without a map, if it is enough for that to matter.

    Parameters
    ----------
    size : int
        Bytes of memory.
    name : str
        Of the image.

    Returns
    -------
    list of Caveat
        Empty up to `LEAST_HOLE`, below which all hypervisors for PCs place memory in one piece.
    """
    if size <= LEAST_HOLE:
        return []
    return [
        Caveat(
            "addresses-are-linear",
            f"no map of its {format_size(size)} was found, so byte N was taken for address N, although "
            "guests of this size have a hole for devices below 4 GiB: addresses above it are too low",
            "put the state file of the same snapshot beside it (.vmss or .vmsn; state.json); page counts are "
            "the same without, and those of large frames too if the hole is a multiple of their size",
            name,
        )
    ]


def describe_ranges(ranges: Sequence[tuple[int, int]]) -> str:
    """Show where memory is, by address and size.

    Examples
    --------
    >>> describe_ranges([(0, 3 << 30), (4 << 30, 1 << 30)])
    '3.0 GiB at 0x0, 1.0 GiB at 0x100000000'
    """
    shown = [describe_range(address, size) for address, size in ranges[:_SHOWN]]
    if len(ranges) > _SHOWN:
        shown.append(f"and {len(ranges) - _SHOWN:,} more")
    return ", ".join(shown)


def is_regular_file(path: str) -> bool:
    """Whether there is a file of that name, and no pipe or device that opening would wait for."""
    try:
        return stat.S_ISREG(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


def read_head(path: str, size: int) -> bytes:
    """Read the first bytes of a regular file; nothing if that is not to be had."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError):
        return b""
    try:
        return os.pread(fd, size, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(fd)
