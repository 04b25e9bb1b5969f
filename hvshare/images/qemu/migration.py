"""QEMU migration streams, as ``migrate exec:cat > FILE`` and plain ``virsh dump`` leave them.

Source: QEMU, ``migration/ram.c`` and ``migration/savevm.c``; see `hvshare.images.qemu.stream` for the format,
`hvshare.images.qemu.blocks` and `hvshare.images.qemu.machine` for addresses. QEMU sends every page of every
block at least once, zero pages as one byte; only with free page hinting does it pass over pages that the
guest has freed. Only the part up to the end of RAM is read, not the state of devices behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvshare.caveats import Caveat
from hvshare.errors import EmptyImageError, UnsupportedImageError
from hvshare.images.extents import Extents
from hvshare.images.image import LeftOut
from hvshare.images.qemu.blocks import describe_blocks, place_blocks
from hvshare.images.qemu.records import NEVER
from hvshare.images.qemu.stream import RECORD, MigrationStream
from hvshare.images.runs import RunKind, Runs
from hvshare.images.segments import check_address
from hvshare.images.stored import StoredImage
from hvshare.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from hvshare.images.image import GuestImage
    from hvshare.images.opening import Opening
    from hvshare.images.qemu.blocks import PlacedRam
    from hvshare.images.source import Source

_LAYOUT: Final = "records of pages, the last of each counts"
_LAYOUT_MAPPED: Final = "a fixed place for each page (mapped-ram)"


def read(opening: Opening) -> GuestImage:
    """Make an image of a migration stream; see `hvshare.images.formats.Format.read`."""
    image = read_stream(opening, opening.positioned())
    image.format, image.tool = "qemu-migration", "QEMU"
    return image


def read_stream(opening: Opening, source: Source, base: int = 0, machine: str | None = None) -> StoredImage:
    """Make an image of a migration stream that starts somewhere in a file.

    Parameters
    ----------
    opening : Opening
        Names the image and says how it is read.
    source : Source
        The file.
    base : int
        Where the stream starts.
    machine : str, optional
        Machine type, for streams that do not tell it.

    Raises
    ------
    ImageError
        If the stream contradicts the format, holds no RAM, or was taken in a way that cannot be read.
    """
    stream = MigrationStream(source, base)
    machine = stream.machine or machine
    placement = place_blocks(machine, stream.blocks)
    runs, extents = Runs(), Extents()
    for part in placement.ram:
        check_address(part.address, part.size, source.path, base)
        if part.block.name in stream.mapped:
            _add_mapped(part, stream, source, machine, runs, extents)
        else:
            _add_records(part, stream, runs, extents)
    if not runs:
        raise EmptyImageError("it holds no RAM", path=source.path, advice="check how it was taken")
    never = runs.pages_of(RunKind.ABSENT)
    if never == runs.pages:
        raise UnsupportedImageError(
            f"none of {format_size(runs.pages * PAGE_SIZE)} of RAM was sent in this stream",
            path=source.path,
            advice="take it again without multifd and RDMA, as virsh save and plain migrate exec: do",
        )
    image = StoredImage(opening.name, source, runs, extents)
    image.layout = _LAYOUT_MAPPED if stream.mapped else _LAYOUT
    image.caveats += placement.caveats(opening.name, device_memory=opening.options.device_memory)
    if never:
        image.caveats.append(_never_sent(never, runs.pages, opening.name))
    _describe(image, stream, machine, placement.ram)
    image.left_out = [LeftOut(None, each.size, f"{each.name} (device memory)") for each in placement.devices]
    return image


def _add_records(part: PlacedRam, stream: MigrationStream, runs: Runs, extents: Extents) -> None:
    low = part.block.first + part.offset // PAGE_SIZE
    moved = part.address // PAGE_SIZE - low
    for first, pages, where in stream.records.within(low, low + part.size // PAGE_SIZE):
        if where == NEVER:
            runs.append(first + moved, pages, RunKind.ABSENT)
        elif where == -1:
            runs.append(first + moved, pages, RunKind.ZERO)
        else:
            runs.append(first + moved, pages, RunKind.PRESENT)
            if where < 0:
                extents.append_fill(-1 - where, pages)
            else:
                extents.append(where, pages, RECORD)


def _add_mapped(
    part: PlacedRam,
    stream: MigrationStream,
    source: Source,
    machine: str | None,
    runs: Runs,
    extents: Extents,
) -> None:
    if (machine or "").startswith("s390"):
        raise UnsupportedImageError(
            "it was taken with mapped-ram on a host whose byte order is not told",
            path=source.path,
            advice="take it again without mapped-ram",
        )
    mapped = stream.mapped[part.block.name]
    low = part.offset // PAGE_SIZE
    moved = part.address // PAGE_SIZE - low
    for first, pages, is_stored in mapped.runs(source, low, low + part.size // PAGE_SIZE):
        runs.append(first + moved, pages, RunKind.PRESENT if is_stored else RunKind.ZERO)
        if is_stored:
            extents.append(mapped.pages_offset + first * PAGE_SIZE, pages)


def _never_sent(never: int, pages: int, name: str) -> Caveat:
    return Caveat(
        "pages-never-sent",
        f"{never:,} of {pages:,} pages of RAM were never sent and count as absent: with free page hinting "
        "QEMU passes over what the guest has freed",
        "take the save with free page hinting off (virtio-balloon, free-page-hint=off) to count all pages",
        name,
    )


def _describe(
    image: StoredImage, stream: MigrationStream, machine: str | None, ram: tuple[PlacedRam, ...]
) -> None:
    if machine:
        image.details["machine type"] = machine
    if stream.uuid:
        image.details["guest UUID"] = stream.uuid
    blocks = list({part.block.name: part.block for part in ram}.values())
    image.details["blocks of RAM"] = describe_blocks(blocks)
    repeated = stream.records.pages_sent - sum(each.size for each in stream.blocks) // PAGE_SIZE
    if repeated > 0 and not stream.mapped:
        image.details["pages sent again"] = f"{repeated:,}, since the guest ran meanwhile"
