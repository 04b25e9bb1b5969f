"""Tell how much memory page sharing would free on a hypervisor, and what takes that away.

The work of the command line, as a library:

>>> import tempfile, hvshare
>>> with tempfile.NamedTemporaryFile() as file:
...     _ = file.write(bytes(8192) + b"a" * 4096 + b"a" * 4096), file.flush()
...     with hvshare.open_image(file.name) as image:
...         report = hvshare.measure(hvshare.fingerprint_images([image]))
>>> pages = report.pooled[4096]
>>> pages.frames, pages.distinct, pages.saved_zero, pages.saved_self
(4, 2, 1, 1)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvshare.version import __version__

if TYPE_CHECKING:
    from hvshare.caveats import Caveat
    from hvshare.erosion.disk import open_disks
    from hvshare.erosion.measure import measure_erosion
    from hvshare.erosion.report import ErosionReport
    from hvshare.errors import HvshareError, ImageError
    from hvshare.fingerprint.files import write_fingerprints
    from hvshare.fingerprint.fingerprints import Fingerprints, FrameDigests
    from hvshare.fingerprint.hashing import Hashing, fingerprint_images
    from hvshare.fingerprint.inputs import StoredFingerprints, open_inputs, read_fingerprints
    from hvshare.fingerprint.provenance import Provenance
    from hvshare.images.image import GuestImage, PageBlock
    from hvshare.images.options import ReadingOptions
    from hvshare.images.registry import open_image, open_images
    from hvshare.images.runs import Run, RunKind, Runs
    from hvshare.sharing.counts import Counts
    from hvshare.sharing.measure import measure
    from hvshare.sharing.report import ImageSharing, SharingReport
    from hvshare.sharing.verification import Verification, verify

__all__ = [
    "Caveat",
    "Counts",
    "ErosionReport",
    "Fingerprints",
    "FrameDigests",
    "GuestImage",
    "Hashing",
    "HvshareError",
    "ImageError",
    "ImageSharing",
    "PageBlock",
    "Provenance",
    "ReadingOptions",
    "Run",
    "RunKind",
    "Runs",
    "SharingReport",
    "StoredFingerprints",
    "Verification",
    "__version__",
    "fingerprint_images",
    "measure",
    "measure_erosion",
    "open_disks",
    "open_image",
    "open_images",
    "open_inputs",
    "read_fingerprints",
    "verify",
    "write_fingerprints",
]

_HOMES = {
    "caveats": ("Caveat",),
    "erosion.disk": ("open_disks",),
    "erosion.measure": ("measure_erosion",),
    "erosion.report": ("ErosionReport",),
    "errors": ("HvshareError", "ImageError"),
    "fingerprint.files": ("write_fingerprints",),
    "fingerprint.fingerprints": ("Fingerprints", "FrameDigests"),
    "fingerprint.hashing": ("Hashing", "fingerprint_images"),
    "fingerprint.inputs": ("StoredFingerprints", "open_inputs", "read_fingerprints"),
    "fingerprint.provenance": ("Provenance",),
    "images.image": ("GuestImage", "PageBlock"),
    "images.options": ("ReadingOptions",),
    "images.registry": ("open_image", "open_images"),
    "images.runs": ("Run", "RunKind", "Runs"),
    "sharing.counts": ("Counts",),
    "sharing.measure": ("measure",),
    "sharing.report": ("ImageSharing", "SharingReport"),
    "sharing.verification": ("Verification", "verify"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    # On demand, so that `hvshare --help` does not wait for numpy.
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"hvshare.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
