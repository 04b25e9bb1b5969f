"""What Windows crash dumps have in common that do not hold all of a guest's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from hvshare.caveats import Caveat
from hvshare.errors import DamagedImageError, EmptyImageError, TruncatedImageError
from hvshare.images.runs import RunKind
from hvshare.images.segments import ADDRESS_LIMIT
from hvshare.units import PAGE_SIZE, format_share

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from hvshare.images.extents import Extents
    from hvshare.images.runs import Runs
    from hvshare.images.source import Positioned

    Memory: TypeAlias = Sequence[tuple[int, int]]

SECOND_HEADER: Final = 0x2000
"""Where the header of a bitmap or of a list of ranges is: behind that of the dump."""

MOST_PAGES: Final = ADDRESS_LIMIT // PAGE_SIZE
TAKE_AGAIN: Final = "take the dump again"


class StoredPages(NamedTuple):
    """The pages of a dump.

    Attributes
    ----------
    runs : Runs
        PRESENT and ABSENT ones.
    extents : Extents
        Where the PRESENT ones are.
    layout : str
        How they are told, in a few words.
    size_known : bool
        Whether the header describes the guest's memory.
    outside : int
        Pages that are stored and lie outside of the memory that the header describes.
    unlisted_bytes : int
        Bytes behind the last page, in a dump that does not say how many pages it has.
    """

    runs: Runs
    extents: Extents
    layout: str
    size_known: bool
    outside: int
    unlisted_bytes: int = 0

    def caveats(self, name: str, dump_type: str) -> list[Caveat]:
        """Say what the dump does not have.

        Parameters
        ----------
        name : str
            Of the image.
        dump_type : str
            In a few words.
        """
        caveats = []
        absent = self.runs.pages_of(RunKind.ABSENT)
        if not self.size_known:
            caveats.append(
                Caveat(
                    "memory-size-unknown",
                    "its header does not describe the guest's memory, so pages that are not in the dump are "
                    "not even counted as absent",
                    "compare the memory that is reported with what the guest has",
                    name,
                )
            )
        if absent or not self.size_known:
            share = f" of {self.runs.pages:,} pages ({format_share(absent, self.runs.pages)})"
            what = f"{absent:,}{share}" if self.size_known else "an unknown number of pages"
            caveats.append(
                Caveat(
                    "filtered-dump",
                    f"{what} were filtered out when it was written (dump type: {dump_type}), so all ratios "
                    "are biased: they are of what was kept",
                    "take a complete memory dump, or one from outside the guest, to measure sharing",
                    name,
                )
            )
        if self.unlisted_bytes >= PAGE_SIZE:
            caveats.append(
                Caveat(
                    "bytes-behind-pages",
                    f"{self.unlisted_bytes:,} bytes follow the last page that its list of ranges names, and "
                    "nothing in the dump says how many pages it has",
                    "if pages seem to be missing, take the dump again",
                    name,
                )
            )
        if self.outside:
            caveats.append(
                Caveat(
                    "pages-outside-memory",
                    f"{self.outside:,} pages of the dump lie outside of the memory that its header describes",
                    "if they are many, check whether the header is damaged",
                    name,
                )
            )
        return caveats


def check_room(data: Positioned, first_page: int, pages: int) -> None:
    """Make sure that a dump has all the pages that it says.

    Raises
    ------
    EmptyImageError
        If they are none.
    TruncatedImageError
        If they do not lie within the file.
    """
    if not pages:
        raise EmptyImageError("it holds no page", path=data.path, advice="check how the dump was made")
    if first_page + pages * PAGE_SIZE > data.end:
        raise TruncatedImageError(
            f"its {pages:,} pages should be here, and the file ends at byte {data.end:,}",
            path=data.path,
            offset=first_page,
            advice="copy or take the dump again",
        )


def no_header(path: str, what: str) -> DamagedImageError:
    """Make the error of a dump that has not what its type says."""
    return DamagedImageError(
        f"by its type it should have {what} here, and has not",
        path=path,
        offset=SECOND_HEADER,
        advice=TAKE_AGAIN,
    )
