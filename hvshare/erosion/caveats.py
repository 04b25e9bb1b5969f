"""What a reader must know before trusting the figures of erosion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvshare.caveats import Caveat

if TYPE_CHECKING:
    from hvshare.erosion.aslr_result import Aslr


def one_vm() -> Caveat:
    """Tell that there is one VM only."""
    return Caveat(
        "one-vm",
        "with one image, all figures are of what a VM shares with itself",
        "name images of two VMs or more to see what the factors take away between them",
    )


def aslr_needs_bytes() -> Caveat:
    """Tell that what ASLR takes away was not looked for."""
    return Caveat(
        "aslr-needs-bytes",
        "what ASLR takes away is in no figure: it is found in the bytes of pages, and fingerprint files hold "
        "digests only, pipes can be read only once",
        "name the images that fingerprint files were made of, and files instead of pipes",
    )


def aslr_caveats(aslr: Aslr, vms: int) -> list[Caveat]:
    """Tell what the bounds of ASLR rest on, and in how many VMs less was looked for.

    Parameters
    ----------
    aslr : Aslr
        What was found.
    vms : int
        How many VMs there are.

    Returns
    -------
    list of Caveat
    """
    found = []
    if aslr.nonzero_pages:
        found.append(
            Caveat(
                "aslr-by-twins",
                "what would be alike without ASLR is told by twins among these pages; the bounds held "
                "against boots without ASLR wherever that was tried, and are no proof",
                "boot the guests once without ASLR (norandmaps nokaslr) to measure it",
            )
        )
    if aslr.wide_vms < vms:
        found.append(
            Caveat(
                "aslr-narrow-addresses",
                f"{vms - aslr.wide_vms} of {vms} VMs seem to have addresses of 32 bits; pages whose contents "
                "are displaced are not looked for among these, so ASLR may take away more there",
                "boot the guests once without ASLR to measure it",
            )
        )
    return found
