from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvshare.sharing.domains import Domain, DomainError, assign, one_per_vm, parse_rule, parse_rules

NAMES = ["web01.raw", "web02.raw", "db.raw", "x[1].raw"]
PATHS = [f"/dumps/{name}" for name in NAMES]


def test_patterns_match_names_or_paths_as_a_whole() -> None:
    rules = [("blue", "web*"), ("red", "/dumps/db.raw"), ("blue", "x[[]1].raw")]
    assert assign(rules, NAMES, PATHS) == ([Domain("blue", (0, 1, 3)), Domain("red", (2,))], [])
    assert assign([("blue", "web0?.raw")], NAMES, PATHS) == ([Domain("blue", (0, 1))], [2, 3])


def test_a_vm_may_match_twice_for_one_domain() -> None:
    assert assign([("blue", "web*"), ("blue", "*01*")], NAMES, PATHS)[0] == [Domain("blue", (0, 1))]


def test_what_cannot_be_meant() -> None:
    with pytest.raises(DomainError, match=r"no image matches 'mail\*', .*'red'; patterns match whole names"):
        assign([("blue", "web*"), ("red", "mail*")], NAMES, PATHS)
    with pytest.raises(DomainError, match=r"web01\.raw is in two sharing domains, 'blue' and 'red'"):
        assign([("blue", "web*"), ("red", "*01.raw")], NAMES, PATHS)
    for text in ("blue", "=web*", "blue=", ""):
        with pytest.raises(DomainError, match="is no sharing domain"):
            parse_rule(text)
    with pytest.raises(DomainError, match=r"d\.txt: line 2 has one column only"):
        parse_rules(["blue web*", "red"], "d.txt")
    with pytest.raises(DomainError, match="names no sharing domain"):
        parse_rules(["", "# nothing"], "d.txt")


def test_patterns_may_hold_an_equals_sign() -> None:
    assert parse_rule("blue=a=b*") == ("blue", "a=b*")


@given(st.lists(st.sampled_from(["blue", "red", "green"]), min_size=1, max_size=9))
def test_domains_part_the_vms(of_vm: list[str]) -> None:
    names = [f"vm{index}" for index in range(len(of_vm))]
    domains, rest = assign(zip(of_vm, names, strict=True), names, names)
    assert rest == []
    assert sorted(vm for domain in domains for vm in domain.vms) == list(range(len(names)))
    assert {domain.name: list(domain.vms) for domain in domains} == {
        name: [index for index, each in enumerate(of_vm) if each == name] for name in of_vm
    }
    assert [domain.vms for domain in one_per_vm(names)] == [(index,) for index in range(len(names))]
