"""What a guest is asked to be: a preset, and every factor that can be switched."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final, Literal

from hvshare.errors import PresetError
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE, format_size, parse_fraction

if TYPE_CHECKING:
    from hvshare.synth.preset import Preset

MOST_MEMORY: Final = 1 << 44
"""Bytes: 16 TiB."""


@dataclass(frozen=True)
class Prefetching:
    """What fills free memory ahead of demand, and how much of it.

    Attributes
    ----------
    kind : str
        ``off``, ``superfetch`` or ``preload``.
    share : Fraction or None
        Of free memory, at the most; None for as much as the prefetcher takes by itself: all for SuperFetch,
        by its own rules for Preload.
    """

    kind: Literal["off", "superfetch", "preload"] = "off"
    share: Fraction | None = None

    @classmethod
    def parse(cls, text: str, preset: Preset) -> Prefetching:
        """Read ``off``, ``superfetch``, ``preload``, ``default``, or a fraction of free memory.

        A fraction is filled by the preset's own prefetcher.

        Raises
        ------
        PresetError
            If it is none of these.
        """
        match text:
            case "default":
                return cls(preset.prefetch)
            case "off" | "superfetch" | "preload":
                return cls(text)
        try:
            share = parse_fraction(text)
        except ValueError:
            share = Fraction(-1)
        if not 0 <= share <= 1:
            raise PresetError(
                f"prefetching of {text!r}",
                advice="give off, superfetch, preload, or a fraction from 0 to 1 of free memory",
            )
        return cls(preset.prefetcher.kind if share else "off", share)

    def __str__(self) -> str:
        return self.kind if self.share is None else f"{self.kind}, {float(self.share):g} of free memory"


@dataclass(frozen=True)
class Settings:
    """A guest to make.

    Attributes
    ----------
    preset : Preset
        Scaled already.
    memory : int
        Bytes, a multiple of 2 MB.
    template, vm, boot : int
        Guests of one template share system files and disk; a VM keeps its own files over boots; each boot
        draws randomization, private data and the placement of frames anew.
    aslr : bool
        Whether address space layout is randomized.
    prefetch : Prefetching
        What fills free memory.
    guest_large_pages : int
        Bytes that applications allocate in large pages; what is not in whole ones is rounded up.
    apps : int
        Bytes that applications allocate beside the programs of the preset; at least `guest_large_pages`.
    fragmentation : Fraction
        Share of the blocks of 2 MB that are broken up.

    Raises
    ------
    PresetError
        If a value cannot be.
    """

    preset: Preset
    memory: int
    template: int = 1
    vm: int = 1
    boot: int = 1
    aslr: bool = True
    prefetch: Prefetching = Prefetching()
    guest_large_pages: int = 0
    apps: int = 0
    fragmentation: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        if not 0 < self.memory <= MOST_MEMORY or self.memory % LARGE_FRAME_SIZE:
            raise PresetError(
                f"memory of {self.memory:,} bytes",
                advice=f"give a multiple of 2 MB, up to {format_size(MOST_MEMORY)}",
            )
        if not 0 <= self.fragmentation <= 1:
            raise PresetError(f"a fragmentation of {self.fragmentation}", advice="give a number from 0 to 1")
        for name, value in (("template", self.template), ("vm", self.vm), ("boot", self.boot)):
            if not 0 <= value < 1 << 64:
                raise PresetError(f"{name} {value}", advice="give a whole number from 0 to 2^64 - 1")
        for name, value in (("apps", self.apps), ("large pages", self.guest_large_pages)):
            if not 0 <= value <= MOST_MEMORY:
                raise PresetError(f"{name} of {value:,} bytes", advice="give no more than memory")

    @property
    def pages(self) -> int:
        """Pages of the guest's memory."""
        return self.memory // PAGE_SIZE

    @property
    def large_blocks(self) -> int:
        """Large pages that applications ask for."""
        return -(-self.guest_large_pages // LARGE_FRAME_SIZE)

    @property
    def application_pages(self) -> int:
        """Pages that applications allocate, those in large pages among them."""
        return max(-(-self.apps // PAGE_SIZE), self.large_blocks * (LARGE_FRAME_SIZE // PAGE_SIZE))
