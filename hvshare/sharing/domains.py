"""Sharing domains: which VMs may share with each other; savings never cross from one to another.

ESX knows them as VMs of equal salt (VMware KB 2080735); since 2014 each VM has a salt of its own by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from hvshare.errors import HvshareError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hvshare.sharing.counts import Counts


class DomainError(HvshareError, ValueError):
    """Sharing domains that cannot be meant."""


@dataclass(frozen=True)
class Domain:
    """A group of VMs that may share.

    Attributes
    ----------
    name : str
        As the user calls it.
    vms : tuple of int
        Indexes of its VMs, ascending.
    """

    name: str
    vms: tuple[int, ...]


@dataclass(frozen=True)
class DomainSharing:
    """What a domain would save.

    Attributes
    ----------
    name : str
        Of the domain.
    images : tuple of str
        Names of its images.
    counts : mapping of int to Counts
        By frame size.
    """

    name: str
    images: tuple[str, ...]
    counts: Mapping[int, Counts]


def one_per_vm(names: Sequence[str]) -> list[Domain]:
    """Give each VM a domain of its own.

    Examples
    --------
    >>> one_per_vm(["web", "db"])
    [Domain(name='web', vms=(0,)), Domain(name='db', vms=(1,))]
    """
    return [Domain(name, (index,)) for index, name in enumerate(names)]


def assign(
    rules: Iterable[tuple[str, str]], names: Sequence[str], paths: Sequence[str]
) -> tuple[list[Domain], list[int]]:
    """Assign VMs to domains.

    Parameters
    ----------
    rules : iterable of tuple of str
        Name of a domain, and a pattern in which ``*``, ``?`` and ``[...]`` stand for any signs; a domain may
        have several.
    names, paths : sequence of str
        Of the images: a pattern has to match either as a whole.

    Returns
    -------
    tuple
        The domains in the order in which they are first named, and the indexes of VMs that none matches.

    Raises
    ------
    DomainError
        If a pattern matches no VM, or a VM is matched for two domains.

    Examples
    --------
    >>> assign([("blue", "web*"), ("red", "db?")], ["web1", "db1", "mail"], ["web1", "db1", "mail"])
    ([Domain(name='blue', vms=(0,)), Domain(name='red', vms=(1,))], [2])
    """
    members: dict[str, set[int]] = {}
    domain_of: dict[int, str] = {}
    for domain, pattern in rules:
        matched = [
            index
            for index, known_as in enumerate(zip(names, paths, strict=True))
            if any(fnmatchcase(each, pattern) for each in known_as)
        ]
        if not matched:
            raise DomainError(
                f"no image matches {pattern!r}, which should be of the sharing domain {domain!r}",
                advice=f"patterns match whole names, such as {names[0]!r}",
            )
        for index in matched:
            if domain_of.setdefault(index, domain) != domain:
                raise DomainError(
                    f"{names[index]} is in two sharing domains, {domain_of[index]!r} and {domain!r}",
                    advice="make their patterns tell it apart",
                )
        members.setdefault(domain, set()).update(matched)
    domains = [Domain(name, tuple(sorted(vms))) for name, vms in members.items()]
    return domains, [index for index in range(len(names)) if index not in domain_of]


def parse_rule(text: str) -> tuple[str, str]:
    """Read ``NAME=PATTERN``.

    Raises
    ------
    DomainError
        If it is not of that form.

    Examples
    --------
    >>> parse_rule("blue=web*")
    ('blue', 'web*')
    """
    name, equals, pattern = text.partition("=")
    if not (name and equals and pattern):
        raise DomainError(f"{text!r} is no sharing domain", advice="write it like blue='web*'")
    return name, pattern


def parse_rules(lines: Iterable[str], path: str) -> list[tuple[str, str]]:
    """Read a file of two columns: a domain and a pattern a line, apart by blanks.

    Blank lines and those that start with ``#`` are passed over. A pattern may hold blanks.

    Raises
    ------
    DomainError
        If a line has one column only, or there is none.

    Examples
    --------
    >>> parse_rules(["# hosts", "blue web*", "red  db of mail"], "domains.txt")
    [('blue', 'web*'), ('red', 'db of mail')]
    """
    rules = []
    for number, line in enumerate(lines, 1):
        columns = line.split(maxsplit=1)
        if not columns or columns[0].startswith("#"):
            continue
        if len(columns) < 2:
            raise DomainError(
                f"line {number} has one column only",
                path=path,
                advice="write a sharing domain and a pattern of image names",
            )
        rules.append((columns[0], columns[1].rstrip()))
    if not rules:
        raise DomainError(
            "it names no sharing domain", path=path, advice="write a domain and a pattern a line"
        )
    return rules
