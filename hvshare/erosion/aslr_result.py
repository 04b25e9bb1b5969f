"""What address randomization takes away from sharing: frozen, and plain numbers only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AslrLayer:
    """Pages of one layer that ASLR drove apart.

    Attributes
    ----------
    name : str
        ``pointers in data``; ``code`` (fields of 32 bits, and addresses across words); ``mixed``; or
        ``displaced`` (twins whose contents stand some bytes further on), as far as content shows it.
    pages : int
        Pages without a copy that are explained.
    saved_frames : int
        Frames of 4 KB that sharing would save further without ASLR; the layers add up to
        `Aslr.explained_saved_frames`.
    """

    name: str
    pages: int
    saved_frames: int

    def __add__(self, other: AslrLayer) -> AslrLayer:
        """Put together what two searches have found in one layer."""
        return AslrLayer(self.name, self.pages + other.pages, self.saved_frames + other.saved_frames)


@dataclass(frozen=True)
class AslrConstant:
    """A distance by which addresses moved between two address spaces.

    Attributes
    ----------
    first_image, second_image : str
        Names of the images; the same where two processes of one VM are compared.
    field_bits : int
        64 for pointers; 32 for those of 32-bit guests, and for fields in code.
    distance : int
        Bytes from the first to the second, a multiple of 4,096; negative where addresses moved down.
    lowest_address, highest_address : int or None
        Between which the addresses in the first image lie that moved by it; None for fields that hold none.
    pages : int
        Pages of the first image whose twins bear it out.
    """

    first_image: str
    second_image: str
    field_bits: int
    distance: int
    lowest_address: int | None
    highest_address: int | None
    pages: int


@dataclass(frozen=True)
class AslrRemainder:
    """Pages without a copy that are not explained, by what they look like.

    Attributes
    ----------
    name : str
        ``near``, ``differs otherwise``, ``no twin`` or ``page table``.
    pages : int
        Pages of all VMs.
    """

    name: str
    pages: int


@dataclass(frozen=True)
class Aslr:
    """What sharing would save further at 4 KB without ASLR, as an interval.

    Attributes
    ----------
    nonzero_pages : int
        Pages of all VMs that are not zero.
    unmatched_pages : int
        Those of them that have no copy.
    explained_pages : int
        Those of them whose difference from a twin is explained by addresses that moved.
    explained_saved_frames : int
        The lower bound: frames that sharing would save further if explained twins were alike.
    explained_saved_self, explained_saved_inter : int
        The parts of it within VMs and between them, as DESIGN counts them.
    near_pages : int
        Further ones that differ from a twin by little that is not explained.
    near_saved_frames : int
        Frames that these would save on top of the lower bound.
    upper_saved_frames : int
        The upper bound: explained and near.
    layers : tuple of AslrLayer
        Explained pages by layer.
    constants : tuple of AslrConstant
        The distances found, those that most pages bear out first.
    remainder : tuple of AslrRemainder
        What is left as different, by reason.
    wide_vms : int
        VMs whose pages point into address spaces of 64 bits. In others, addresses of 32 bits were looked for,
        too, at the same place in the page only.
    """

    nonzero_pages: int
    unmatched_pages: int
    explained_pages: int
    explained_saved_frames: int
    explained_saved_self: int
    explained_saved_inter: int
    near_pages: int
    near_saved_frames: int
    upper_saved_frames: int
    layers: tuple[AslrLayer, ...]
    constants: tuple[AslrConstant, ...]
    remainder: tuple[AslrRemainder, ...]
    wide_vms: int
