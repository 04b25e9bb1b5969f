"""What simulations must come to, where a formula tells.

Each function says from what it is derived. They are exact, up to the rounding of floating-point numbers, for
guests whose pages are drawn as described; tests hold simulations against them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

BIASES = 256
"""Image-load biases that Windows chooses from at each boot, by J. Woolsey's series, part 4."""


class ExpectedSavings(NamedTuple):
    """Expected frames saved of zero pages, by self-sharing and between VMs."""

    zero: float
    self_sharing: float
    inter_vm: float

    @property
    def saved(self) -> float:
        """Expected frames saved in all."""
        return self.zero + self.self_sharing + self.inter_vm


def expected_distinct(draws: float, contents: int, chance: float = 1.0) -> float:
    """Expect so many different contents among those drawn.

    Parameters
    ----------
    draws : float
        How often one is drawn.
    contents : int
        How many there are, each as likely as any other.
    chance : float
        That a draw is of these contents at all.

    Returns
    -------
    float
        contents * (1 - (1 - chance / contents)**draws): a content is in no draw with the power, and
        expectations add up.

    Examples
    --------
    >>> round(expected_distinct(1, 256), 9)
    1.0
    >>> round(expected_distinct(2, 2), 9)
    1.5
    """
    if not contents or not chance:
        return 0.0
    if chance == contents:
        return 1.0 if draws else 0.0
    return -contents * math.expm1(draws * math.log1p(-chance / contents))


def expected_savings(*, vms: int, pages: int, zero: float, common: float, contents: int) -> ExpectedSavings:
    """Expect what sharing saves in guests whose pages are drawn independently.

    Parameters
    ----------
    vms : int
        Guests.
    pages : int
        Pages of each.
    zero, common : float
        Chance that a page is zero; that it is one of the common contents. All other pages are private: no
        other page has their content.
    contents : int
        Common contents, each as likely as any other; the same in all guests.

    Returns
    -------
    ExpectedSavings
        In pages.

    Raises
    ------
    ValueError
        If the chances are no chances.

    Notes
    -----
    Of N guests of P pages, with D(n) = `expected_distinct` of n draws of a common content:
    zero = N P z - (1 - (1 - z)**(N P)), since one zero page is kept if there is any;
    self-sharing = N (P c - D(P)), what each guest has beyond one page a content;
    between VMs = N D(P) - D(N P), what is left of those but for one page a content.

    Examples
    --------
    >>> found = expected_savings(vms=2, pages=100, zero=0.5, common=0.0, contents=1)
    >>> round(found.zero), found.self_sharing, found.inter_vm
    (99, 0.0, 0.0)
    """
    if vms < 1 or pages < 1 or min(zero, common) < 0 or zero + common > 1:
        raise ValueError(f"{vms} guests of {pages} pages, of which {zero} are zero and {common} common")
    any_zero = -math.expm1(vms * pages * math.log1p(-zero)) if zero < 1 else 1.0
    of_one = expected_distinct(pages, contents, common)
    of_all = expected_distinct(vms * pages, contents, common)
    return ExpectedSavings(
        vms * pages * zero - any_zero, vms * (pages * common - of_one), vms * of_one - of_all
    )


def expected_biases(boots: int, biases: int = BIASES) -> float:
    """Expect so many different image-load biases among some boots, each of which draws one.

    Examples
    --------
    >>> round(expected_biases(2), 6), round(2 - 1 / 256, 6)
    (1.996094, 1.996094)
    """
    return expected_distinct(boots, biases)


def expected_relocated_sharing(vms: int, pages: int, biases: int = BIASES) -> float:
    """Expect so many pages saved between VMs of pages whose content follows from the bias of the boot.

    Parameters
    ----------
    vms : int
        Guests, each of a boot of its own.
    pages : int
        Pages of each that hold addresses moved by the bias, all different in one guest.
    biases : int
        How many there are to choose from.

    Returns
    -------
    float
        pages * (vms - `expected_biases`): of each page there are as many contents as there are different
        biases.

    Examples
    --------
    >>> round(expected_relocated_sharing(2, 256), 9)
    1.0
    """
    return pages * (vms - expected_biases(vms, biases))


def untouched_chance(pages: int, frame_pages: int, written: int) -> float:
    """Give the chance that no page of a frame is among some that were chosen out of all pages.

    Parameters
    ----------
    pages : int
        Pages of the guest.
    frame_pages : int
        Pages of a frame.
    written : int
        Different pages written, every choice of so many as likely as any other.

    Returns
    -------
    float
        C(pages - frame_pages, written) / C(pages, written), which is the hypergeometric chance of no hit, as
        a product over the pages of the frame.

    Raises
    ------
    ValueError
        If more is written, or in the frame, than there is.

    Examples
    --------
    >>> untouched_chance(4, 2, 1), untouched_chance(4, 2, 3)
    (0.5, 0.0)
    """
    if not 0 <= written <= pages or not 0 < frame_pages <= pages:
        raise ValueError(f"{written} of {pages} pages written, {frame_pages} in a frame")
    return math.prod(max(pages - written - index, 0) / (pages - index) for index in range(frame_pages))


def expected_shared_frames(vms: int, untouched: float) -> float:
    """Expect this share of the frames of some clones to be held by another clone still.

    Parameters
    ----------
    vms : int
        Clones of one snapshot, which write independently.
    untouched : float
        Chance that a clone has not written to a frame, as of `untouched_chance`.

    Returns
    -------
    float
        q * (1 - (1 - q)**(vms - 1)): the clone's own frame is untouched, and that of at least one other.

    Examples
    --------
    >>> expected_shared_frames(2, 0.5), expected_shared_frames(1, 1.0)
    (0.25, 0.0)
    """
    return untouched * (1 - (1 - untouched) ** (vms - 1))
