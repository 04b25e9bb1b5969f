"""Where the digests of a fingerprint file came from."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hvshare.caveats import Caveat
from hvshare.images.image import LeftOut

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from hvshare.images.image import GuestImage

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Provenance:
    """What a fingerprint file tells of its image, beside name, path and format.

    Attributes
    ----------
    layout, compression, page_compression, tool, vmcoreinfo, details, left_out, file_bytes
        As in `GuestImage`.
    modified : str or None
        When the file of the image was last written to, in UTC (ISO 8601).
    written : str or None
        When the fingerprint file was written, in UTC (ISO 8601).
    written_by : str or None
        What wrote the fingerprint file, and its version.
    """

    layout: str = ""
    compression: str | None = None
    page_compression: str | None = None
    tool: str | None = None
    vmcoreinfo: bool | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    file_bytes: int | None = None
    modified: str | None = None
    written: str | None = None
    written_by: str | None = None

    @classmethod
    def of(cls, image: GuestImage) -> Self:
        """Gather what is known of an image."""
        return cls(
            image.layout,
            image.compression,
            image.page_compression,
            image.tool,
            image.vmcoreinfo,
            dict(image.details),
            tuple(image.left_out),
            image.file_bytes,
            _modified(image),
        )

    def to_json(self) -> dict[str, object]:
        """Give what a fingerprint file holds under ``image``."""
        return {
            "layout": self.layout,
            "compression": self.compression,
            "page_compression": self.page_compression,
            "tool": self.tool,
            "vmcoreinfo": self.vmcoreinfo,
            "details": dict(self.details),
            "left_out": [
                {"address": each.address, "size_bytes": each.size, "what": each.what}
                for each in self.left_out
            ],
            "file_bytes": self.file_bytes,
            "modified": self.modified,
        }

    @classmethod
    def from_json(cls, image: Mapping[str, Any], written: str, written_by: str) -> Self:
        """Read what `to_json` gives.

        Raises
        ------
        ValueError
            If something is missing or of a wrong type.
        """
        details = wanted(image, "details", dict)
        return cls(
            wanted(image, "layout", str),
            optional(image, "compression", str),
            optional(image, "page_compression", str),
            optional(image, "tool", str),
            optional(image, "vmcoreinfo", bool),
            {name: wanted(details, name, str) for name in details},
            tuple(map(_left_out, wanted(image, "left_out", list))),
            optional(image, "file_bytes", int),
            optional(image, "modified", str),
            written,
            written_by,
        )


def caveat_to_json(caveat: Caveat) -> dict[str, object]:
    """Give what a fingerprint file holds for a caveat of its image."""
    return {"code": caveat.code, "message": caveat.message, "advice": caveat.advice}


def caveat_from_json(entry: object, name: str) -> Caveat:
    """Read what `caveat_to_json` gives, as a caveat of the image of some name.

    Raises
    ------
    ValueError
        If something is missing or of a wrong type.
    """
    fields = checked(entry, dict, "a caveat")
    return Caveat(
        wanted(fields, "code", str), wanted(fields, "message", str), wanted(fields, "advice", str), name
    )


def wanted(fields: Mapping[str, Any], name: str, kind: type[_Found]) -> _Found:
    """Take a field that has to be there, and of some type.

    Raises
    ------
    ValueError
        If it is not.
    """
    return checked(fields.get(name), kind, name)


def optional(fields: Mapping[str, Any], name: str, kind: type[_Found]) -> _Found | None:
    """Take a field that may be null; see `wanted`."""
    return None if fields.get(name, ...) is None else wanted(fields, name, kind)


def checked(value: object, kind: type[_Found], what: str) -> _Found:
    """Give a value of some type, where a truth value is no number and numbers are not negative.

    Raises
    ------
    ValueError
        If it is of another.
    """
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{what} is no {kind.__name__}")  # one error for all that is wrong
    if isinstance(value, int) and value < 0:
        raise ValueError(f"{what} is negative")
    return value


def _left_out(entry: object) -> LeftOut:
    fields = checked(entry, dict, "what is left out")
    return LeftOut(
        optional(fields, "address", int), wanted(fields, "size_bytes", int), wanted(fields, "what", str)
    )


def _modified(image: GuestImage) -> str | None:
    """Tell when the file of an image was written to, unless another one is there by now."""
    if image.identity is None:
        return None
    try:
        found = os.fstat(0) if image.path == "-" else Path(image.path).stat()
    except OSError:
        return None
    if (found.st_dev, found.st_ino) != image.identity:
        return None
    return utc(found.st_mtime)


def utc(seconds: float) -> str:
    """Write a time since the epoch in UTC.

    Examples
    --------
    >>> utc(0)
    '1970-01-01T00:00:00Z'
    """
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
