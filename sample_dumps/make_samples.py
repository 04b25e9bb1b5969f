"""Make the sample dumps: memory of three guests of one template, as bzip2-compressed raw images.

`hvshare synth` makes them of ``sample.toml``. They are compressed with bzip2, since what libbz2 writes,
unlike what zlib does, depends neither on its version nor on the machine.
"""

from __future__ import annotations

import argparse
import bz2
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.synth.guest import GuestPlan, plan_guest
from hvshare.synth.owners import Owner
from hvshare.synth.preset_file import load_preset
from hvshare.synth.settings import Prefetching, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE: Final = Path(__file__).parent
SUMS: Final = "SHA256SUMS"
RAW_SUMS: Final = "SHA256SUMS.raw"


def plan_guests() -> dict[str, GuestPlan]:
    """Plan the three guests, by their names."""
    preset = load_preset(str(HERE / "sample.toml"))
    most = Prefetching.parse("0.65", preset)
    nothing = Prefetching("off")
    return {
        name: plan_guest(
            Settings(
                preset,
                preset.memory,
                vm=number,
                boot=number,
                prefetch=prefetch,
                apps=apps << 10,
                fragmentation=preset.fragmentation,
            )
        )
        for number, (name, prefetch, apps) in enumerate(
            (("guest-web", nothing, 512), ("guest-db", nothing, 1536), ("guest-prefetch", most, 256)), 1
        )
    }


def image_of(plan: GuestPlan) -> bytes:
    """Make the raw image of a guest."""
    out = np.empty((len(plan), 512), np.uint64)
    plan.make(out, 0)
    return out.tobytes()


def sums(contents: Mapping[str, bytes]) -> str:
    """Write checksums as sha256sum does."""
    return "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents.items())


def describe(plans: Mapping[str, GuestPlan]) -> str:
    """Write a table of what pages are used for."""
    lines = [f"| Pages of | {' | '.join(plans)} |", f"|---|{'---:|' * len(plans)}"]
    for owner in Owner:
        counts = [plan.pages_of_owners[owner] for plan in plans.values()]
        if any(counts):
            shares = (
                f"{count:,} ({100 * count / len(plan):.1f} %)"
                for count, plan in zip(counts, plans.values(), strict=True)
            )
            lines.append(f"| {owner.title} | {' | '.join(shares)} |")
    lines.append(f"| all | {' | '.join(f'{len(plan):,}' for plan in plans.values())} |")
    return "\n".join(lines)


def check(raw: Mapping[str, bytes], compressed: Mapping[str, bytes]) -> int:
    """Compare what would be made with the checksums beside this file; gives the exit code."""
    code = 0
    for name, contents, meaning in (
        (RAW_SUMS, raw, "the images differ: hvshare synth makes other bytes than it did"),
        (SUMS, compressed, "the compressed files differ: make samples, and look at what changed"),
    ):
        if (HERE / name).read_text() != sums(contents):
            print(f"{name}: {meaning}", file=sys.stderr)
            code = 1
    for name, content in compressed.items():
        if (HERE / name).read_bytes() != content:
            print(f"{name} is not what its checksum says", file=sys.stderr)
            code = 1
    return code


def main() -> int:
    """Make the samples, check them, or describe them."""
    parser = argparse.ArgumentParser(description="Make the sample dumps.")
    parser.add_argument("--check", action="store_true", help="make them in memory and compare checksums")
    parser.add_argument("--describe", action="store_true", help="print what is in them")
    options = parser.parse_args()
    plans = plan_guests()
    if options.describe:
        print(describe(plans))
        return 0
    raw = {f"{name}.raw": image_of(plan) for name, plan in plans.items()}
    compressed = {f"{name}.bz2": bz2.compress(content) for name, content in raw.items()}
    if options.check:
        return check(raw, compressed)
    for name, content in compressed.items():
        (HERE / name).write_bytes(content)
    (HERE / SUMS).write_text(sums(compressed))
    (HERE / RAW_SUMS).write_text(sums(raw))
    return 0


if __name__ == "__main__":
    sys.exit(main())
