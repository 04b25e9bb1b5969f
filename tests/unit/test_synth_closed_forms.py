"""What formulas expect of guests, against guests that are made and counted."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from statistics import mean

import numpy as np
import pytest
from numpy.typing import NDArray

import hvshare
from hvshare.fingerprint.pages import digest_pages
from hvshare.images.runs import RunKind, Runs
from hvshare.simulation.closed_forms import expected_relocated_sharing
from hvshare.synth.address_spaces import BOOT, LIBRARIES
from hvshare.synth.guest import GuestPlan, plan_guest
from hvshare.synth.image import SynthImage
from hvshare.synth.layouts import lay_out
from hvshare.synth.owners import Owner
from hvshare.synth.preset import Preset, Program
from hvshare.synth.preset_file import load_preset
from hvshare.synth.settings import Settings
from hvshare.synth.template import Template

VMS = 40
GROUPS = 50


def fingerprints_of(plan: GuestPlan, gfns: NDArray[np.int64]) -> hvshare.Fingerprints:
    """Take some pages of a guest, as if it had no others."""
    memory = np.empty((len(plan), 512), np.uint64)
    plan.make(memory, 0)
    digests = np.array(digest_pages([memoryview(page.tobytes()) for page in memory[gfns]]), np.uint64)
    runs = Runs()
    runs.append(0, len(gfns), RunKind.PRESENT)
    return hvshare.Fingerprints("guest", "guest", "synth", runs, digests)


def test_relocated_pages_are_shared_by_guests_of_one_bias() -> None:
    preset = load_preset("windows7-x86").scaled(Fraction(1, 512))
    template = Template(preset, 1)
    plans = [
        plan_guest(Settings(preset, preset.memory, vm=vm, boot=vm), template) for vm in range(1, VMS + 1)
    ]
    biases = {int(plan.spaces.bases[BOOT, LIBRARIES]) for plan in plans}
    # Some of them meet, so that there is something to share.
    assert len(biases) < VMS
    relocated = template.disk.keys[template.disk.relocated]
    pages = [
        np.flatnonzero((plan.owners == Owner.LIBRARIES) & np.isin(plan.contents.keys, relocated))
        for plan in plans
    ]
    assert len({len(each) for each in pages}) == 1
    count = len(pages[0])
    assert count > 50
    pooled = hvshare.measure([fingerprints_of(*each) for each in zip(plans, pages, strict=True)]).pooled[4096]
    # Exactly: one copy a bias is kept of each page.
    assert (pooled.saved_inter, pooled.saved_self) == (count * (VMS - len(biases)), 0)


def test_biases_meet_as_often_as_formulas_expect() -> None:
    preset = load_preset("windows7-x86").scaled(Fraction(1, 512))
    template = Template(preset, 1)
    # Where libraries lie does not depend on how many processes load them.
    disk, (process, *_) = template.disk, template.processes
    found = []
    for seed in range(1, GROUPS + 1):
        draws = Template(preset, seed).draws
        layouts = (
            lay_out(
                preset,
                disk,
                [process],
                preset.memory,
                draws.child("vm", vm).child("boot", vm).child("layout"),
            )
            for vm in range(1, VMS + 1)
        )
        found.append(VMS - len({int(spaces.bases[BOOT, LIBRARIES]) for spaces in layouts}))
    # Of 40 boots 2.9 draw a bias that another one drew before, with a deviation of 1.6: the mean of so many
    # groups varies by 0.23, so boots that never met, or met by half more or less often, would be told.
    assert mean(found) == pytest.approx(expected_relocated_sharing(VMS, 1), abs=4 * 1.6 / GROUPS**0.5)


def one_program(common: Fraction, near: Fraction) -> Preset:
    """Describe a guest that is a heap, free memory, and next to nothing else."""
    preset = load_preset("linux-x64").scaled(Fraction(1, 256))
    program = Program("program", processes=1, image=64 << 10, libraries=0, heap=6 << 20, stack=4096)
    return dataclasses.replace(
        preset,
        heaps=dataclasses.replace(preset.heaps, common=common, near=near),
        cache=dataclasses.replace(preset.cache, own=0, template=0),
        free=dataclasses.replace(preset.free, dirty=Fraction(0)),
        programs=(program,),
    )


@pytest.mark.parametrize("vms", [1, 4])
@pytest.mark.parametrize(("common", "near"), [("0", "0"), ("1", "0"), ("0.3", "0.1"), ("0", "1")])
def test_savings_are_those_of_the_fractions_asked_for(vms: int, common: str, near: str) -> None:
    preset = one_program(Fraction(common), Fraction(near))
    template = Template(preset, 1)
    plans = [
        plan_guest(Settings(preset, preset.memory, vm=vm, boot=vm, aslr=False), template)
        for vm in range(1, vms + 1)
    ]
    whole = hvshare.measure(
        hvshare.fingerprint_images([SynthImage(f"vm {number}", plan) for number, plan in enumerate(plans)])
    ).pooled[4096]
    free = plans[0].pages_of_owners[Owner.FREE]
    assert whole.saved_zero == vms * free - 1
    heaps = [np.flatnonzero(plan.owners == Owner.HEAPS) for plan in plans]
    heap = hvshare.measure([fingerprints_of(*each) for each in zip(plans, heaps, strict=True)]).pooled[4096]
    pages = len(heaps[0])
    assert heap.saved_self == 0
    # All guests but one are freed of what is common; how many pages that is was drawn page by page.
    share = float(Fraction(common))
    error = (share * (1 - share) / pages) ** 0.5
    assert heap.saved_inter / pages == pytest.approx((vms - 1) * share, abs=4 * (vms - 1) * error + 1e-12)


def test_processes_of_a_program_share_what_is_common_within_a_guest() -> None:
    preset = one_program(Fraction(3, 10), Fraction(0))
    program = dataclasses.replace(preset.programs[0], processes=4, heap=2 << 20)
    preset = dataclasses.replace(preset, programs=(program,))
    plan = plan_guest(Settings(preset, preset.memory, aslr=False), Template(preset, 1))
    heap = hvshare.measure([fingerprints_of(plan, np.flatnonzero(plan.owners == Owner.HEAPS))]).pooled[4096]
    error = (0.3 * 0.7 / 512) ** 0.5
    assert heap.saved_self / 512 == pytest.approx(3 * 0.3, abs=4 * 3 * error)
