"""What sharing frees, in frames of one size."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """The counts of one sharing domain at one frame size.

    Parameters
    ----------
    frame_size : int
        Bytes of a frame.
    frames : int
        Whole frames.
    partial_frames : int
        Frames that are not whole; they are in no other count.
    zero : int
        Frames among `frames` that are zero.
    distinct : int
        Different contents, zero included.
    saved_zero : int
        max(zero - 1, 0).
    saved_self : int
        Sum over contents d other than zero and VMs v of max(n_v(d) - 1, 0), where n_v(d) is how many
        copies of d the VM v holds.
    saved_inter : int
        Sum over contents d other than zero of the number of VMs that hold d, less one.

    Raises
    ------
    ValueError
        If the parts do not add up to `frames` - `distinct`.

    Examples
    --------
    >>> Counts(4096, frames=10, partial_frames=0, zero=4, distinct=5,
    ...        saved_zero=3, saved_self=1, saved_inter=1).saved_bytes
    20480
    """

    frame_size: int
    frames: int
    partial_frames: int
    zero: int
    distinct: int
    saved_zero: int
    saved_self: int
    saved_inter: int

    def __post_init__(self) -> None:
        if self.saved_zero + self.saved_self + self.saved_inter != self.frames - self.distinct:
            raise ValueError(f"counts do not add up: {self}")

    @property
    def saved(self) -> int:
        """Frames freed when every content is kept once."""
        return self.frames - self.distinct

    @property
    def saved_bytes(self) -> int:
        """`saved` in bytes."""
        return self.saved * self.frame_size

    @property
    def frame_bytes(self) -> int:
        """All whole frames in bytes."""
        return self.frames * self.frame_size


def count_domain(
    frame_size: int, *, partial_frames: int, zero: int, nonzero: int, distinct_of: list[int], distinct: int
) -> Counts:
    """Put the counts of a sharing domain together.

    Parameters
    ----------
    frame_size : int
        Bytes of a frame.
    partial_frames, zero, nonzero : int
        Frames of all VMs of the domain.
    distinct_of : list of int
        Different contents other than zero within each VM.
    distinct : int
        Different contents other than zero in the domain.

    Returns
    -------
    Counts
        With saved_self = nonzero - sum(distinct_of) and saved_inter = sum(distinct_of) - distinct, which
        are the sums that define them.

    Examples
    --------
    >>> count_domain(4096, partial_frames=0, zero=4, nonzero=6, distinct_of=[3, 2], distinct=4).saved_inter
    1
    """
    held = sum(distinct_of)
    return Counts(
        frame_size,
        frames=zero + nonzero,
        partial_frames=partial_frames,
        zero=zero,
        distinct=distinct + (zero > 0),
        saved_zero=max(zero - 1, 0),
        saved_self=nonzero - held,
        saved_inter=held - distinct,
    )
