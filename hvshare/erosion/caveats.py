"""What a reader must know before trusting the figures of erosion."""

from __future__ import annotations

from hvshare.caveats import Caveat


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
