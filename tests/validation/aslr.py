"""ASLR: what sharing would save further, against what it saves in boots with ASLR off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.validation.counting import Savings, savings
from tests.validation.lab import Lab
from tests.validation.proofs import Predict, PredictionError, Proof

LEAST_SHARE: Final = 0.75
MOST_CONTROL: Final = 0.10
_OFF: Final = "noaslr"
_ON: Final = ("aslr", "kaslronly", "useraslronly")


def prove_aslr(lab: Lab, predict: Predict) -> Proof:
    """Hold the interval of each pair against what two boots of the same disk save without ASLR."""
    proof = Proof(
        "ASLR",
        "hvshare erosion aslr --json GUEST.raw...",
        "frames of 4 KB that guests noaslr of the same letters save, less those that these save, by BLAKE2b "
        "of each page, and Counters. The control is a pair without ASLR, beside what is measured of the pair "
        "of aslr of the same letters.",
    )
    if not lab.pairs(_OFF):
        proof.missing(f"two guests {_OFF}, so nothing is known of what is true")
        return proof
    for group in _ON:
        pairs = [pair for pair in _sets(lab, group) if _without(lab, pair)]
        if not pairs:
            proof.missing(f"two guests {group}")
        for pair in pairs:
            _prove(proof, lab, predict, pair)
    for pair in lab.pairs(_OFF):
        victims = [f"aslr-{guest[-1]}" for guest in pair]
        if not all(map(lab.has, victims)):
            continue
        try:
            found = predict("aslr", (), pair)
        except PredictionError as error:
            proof.failed(pair, error)
            continue
        truth = _savings(lab, pair).saved - _savings(lab, victims).saved
        proof.share(pair, "control: lower bound", found["explained_saved_frames"], truth, below=MOST_CONTROL)
    _tell_chance(proof, lab)
    return proof


def _sets(lab: Lab, group: str) -> list[tuple[str, ...]]:
    """List the pairs of a group, and all of it where that is more."""
    pairs, members = lab.pairs(group), tuple(lab.members(group))
    return pairs if len(members) < 3 else [*pairs, members]


def _prove(proof: Proof, lab: Lab, predict: Predict, pair: Sequence[str]) -> None:
    try:
        found = predict("aslr", (), pair)
    except PredictionError as error:
        proof.failed(pair, error)
        return
    off, on = _savings(lab, _without(lab, pair)), _savings(lab, pair)
    truth = off.saved - on.saved
    low, high = found["explained_saved_frames"], found["upper_saved_frames"]
    proof.within(pair, "saved further, frames", (low, high), truth)
    proof.share(pair, "lower bound", low, truth, at_least=LEAST_SHARE)
    proof.share(pair, "its self-sharing", found["explained_saved_self"], off.own - on.own)
    proof.share(pair, "its inter-VM sharing", found["explained_saved_inter"], off.inter - on.inter)


def _without(lab: Lab, pair: Sequence[str]) -> list[str]:
    """Name the pair without ASLR that has the same letters, if it is there."""
    off = [f"{_OFF}-{guest[-1]}" for guest in pair]
    return off if all(map(lab.has, off)) else []


def _savings(lab: Lab, guests: Sequence[str]) -> Savings:
    return savings([lab.pages(guest) for guest in guests])


def _tell_chance(proof: Proof, lab: Lab) -> None:
    """Tell by how much pairs differ that nothing but chance tells apart."""
    for group in (_OFF, "aslr"):
        saved = [_savings(lab, pair).saved for pair in lab.pairs(group)]
        if len(saved) > 1:
            proof.notes.append(f"Pairs of {group} save from {min(saved):,} to {max(saved):,} frames.")
