"""What takes sharing away, as JSON, JSON lines and CSV; the schemas are in ``docs/schema``."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Final

from hvshare.report.aslr import aslr_fields
from hvshare.report.large_pages import large_pages_fields
from hvshare.report.machine import caveat_fields, counts_by_size, image_fields, json_document
from hvshare.report.prefetch_machine import prefetch_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hvshare.erosion.report import ErosionReport

EROSION_SCHEMA: Final = "hvshare.erosion/1"


def erosion_json(report: ErosionReport) -> str:
    """Write a report as one JSON object; sections that were not asked for are null."""
    return json_document(
        {
            "schema": EROSION_SCHEMA,
            "images": [image_fields(image) for image in report.images],
            "pooled": counts_by_size(report.pooled),
            **_sections(report),
            **_end(report),
        }
    )


def erosion_json_lines(report: ErosionReport) -> str:
    """Write a report as lines: one an image, one a section, then one for all."""
    lines: list[dict[str, object]] = [{"type": "image", **image_fields(image)} for image in report.images]
    lines += [{"type": name, **fields} for name, fields in _sections(report).items() if fields is not None]
    lines.append({"type": "pooled", "pooled": counts_by_size(report.pooled), **_end(report)})
    return "".join(
        json.dumps({"schema": EROSION_SCHEMA, **line}, separators=(",", ":")) + "\n" for line in lines
    )


def erosion_csv(report: ErosionReport) -> str:
    """Write a report as CSV: a row a figure, called as JSON calls it.

    Returns
    -------
    str
        Columns ``section``, ``figure`` and ``value``. Names of figures in a section are joined by dots, and
        members of a list have their number, from 0 on.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("section", "figure", "value"))
    parts: dict[str, object] = {
        "images": [image_fields(image) for image in report.images],
        "pooled": counts_by_size(report.pooled),
        **_sections(report),
        "waterfall": _end(report)["waterfall"],
    }
    for section, content in parts.items():
        writer.writerows((section, figure, value) for figure, value in _leaves(content))
    return text.getvalue()


def _sections(report: ErosionReport) -> dict[str, Mapping[str, object] | None]:
    return {
        "large_pages": None if report.large_pages is None else large_pages_fields(report.large_pages),
        "aslr": None if report.aslr is None else aslr_fields(report.aslr),
        "prefetch": None if report.prefetch is None else prefetch_fields(report.prefetch),
    }


def _end(report: ErosionReport) -> dict[str, object]:
    return {
        "waterfall": [
            {
                "factor": step.factor,
                "kind": str(step.kind),
                "lower_bytes": step.lower_bytes,
                "upper_bytes": step.upper_bytes,
            }
            for step in report.waterfall
        ],
        "caveats": caveat_fields(report.caveats),
    }


def _leaves(content: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Give what holds nothing further, with its name."""
    if isinstance(content, dict):
        members = list(content.items())
    elif isinstance(content, list):
        members = list(enumerate(content))
    else:
        if content is not None:
            yield name, content
        return
    for key, member in members:
        yield from _leaves(member, f"{name}.{key}" if name else str(key))
