"""What VMCOREINFO tells a person: lines of ``key=value`` that a Linux kernel keeps for its dumps.

Source: Linux ``Documentation/admin-guide/kdump/vmcoreinfo.rst``.
"""

from __future__ import annotations

from typing import Final

_SHOWN: Final = {"OSRELEASE": "kernel", "KERNELOFFSET": "KASLR offset"}
_MOST_SHOWN: Final = 128


def describe_vmcoreinfo(content: bytes) -> dict[str, str]:
    """Pick what a person would check.

    Examples
    --------
    >>> describe_vmcoreinfo(b"OSRELEASE=6.1.0-50-cloud-amd64\\nPAGESIZE=4096\\nKERNELOFFSET=23600000\\n")
    {'kernel': '6.1.0-50-cloud-amd64', 'KASLR offset': '0x23600000'}
    """
    found = {}
    for line in content.decode("utf-8", "backslashreplace").splitlines():
        key, _, value = line.partition("=")
        if key in _SHOWN:
            value = value[:_MOST_SHOWN]
            found[_SHOWN[key]] = f"0x{value}" if key == "KERNELOFFSET" else value
    return found
