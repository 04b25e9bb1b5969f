"""What is known of a made guest: who owns each page, and what ASLR did to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np

from hvshare.errors import DamagedImageError, UnreadableImageError
from hvshare.synth.owners import Owner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from hvshare.synth.guest import GuestPlan

SCHEMA = "hvshare.truth/1"


@dataclass(frozen=True)
class Truth:
    """What is known of each page of a guest, in the order of gfns.

    Attributes
    ----------
    owners : ndarray of uint8, shape (pages,)
        What it is used for, out of `Owner`.
    aslr : ndarray of bool, shape (pages,)
        Whether ASLR changed any of its bytes.
    contents : ndarray of uint64, shape (pages,)
        XXH3-64 of the page as it would be without ASLR: what is equal here would be alike.
    """

    owners: NDArray[np.uint8]
    aslr: NDArray[np.bool_]
    contents: NDArray[np.uint64]

    def write(self, file: IO[bytes], plan: GuestPlan) -> None:
        """Write it in numpy's format ``.npz``, with members ``owner``, ``aslr``, ``content`` and ``about``.

        ``about`` is JSON: the schema, the names of owners by number, and what was asked for.
        """
        settings = plan.settings
        about = {
            "schema": SCHEMA,
            "owners": [owner.title for owner in Owner],
            "preset": settings.preset.name,
            "memory_bytes": settings.memory,
            "template": settings.template,
            "vm": settings.vm,
            "boot": settings.boot,
            "aslr": settings.aslr,
            "prefetch": str(settings.prefetch),
            "guest_large_pages_bytes": plan.large_blocks << 21,
            "application_bytes": settings.application_pages << 12,
            "fragmentation": float(settings.fragmentation),
        }
        np.savez(
            file, owner=self.owners, aslr=self.aslr, content=self.contents, about=np.array(json.dumps(about))
        )

    @classmethod
    def read(cls, path: str) -> tuple[Truth, Mapping[str, object]]:
        """Read what `write` wrote.

        Returns
        -------
        Truth
        about : mapping
            What was asked for.

        Raises
        ------
        ImageError
            If the file cannot be read, or is none of these.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as members:
                about = json.loads(str(members["about"]))
                found = cls(members["owner"], members["aslr"], members["content"])
        except OSError as error:
            raise UnreadableImageError(error.strerror or str(error), path=path) from error
        except Exception as error:  # whatever numpy, zipfile and json raise of damaged files
            raise DamagedImageError(f"it is no file of hvshare synth --truth ({error})", path=path) from error
        if about.get("schema") != SCHEMA or not len(found.owners) == len(found.aslr) == len(found.contents):
            raise DamagedImageError("it is no file of this version of hvshare synth --truth", path=path)
        return found, about
