"""Results as JSON, JSON lines and CSV, as the schemas in ``docs/schema`` say."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Final

from hvshare.images.runs import RunKind
from hvshare.report.text import encodable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvshare.caveats import Caveat
    from hvshare.images.inspection import Inspection
    from hvshare.sharing.counts import Counts
    from hvshare.sharing.report import ImageSharing, SharingReport

SHARING_SCHEMA: Final = "hvshare.sharing/1"
INSPECT_SCHEMA: Final = "hvshare.inspect/1"

_COUNTS: Final = (
    "frames",
    "partial_frames",
    "zero",
    "distinct",
    "saved",
    "saved_zero",
    "saved_self",
    "saved_inter",
    "saved_bytes",
)
_CSV_COLUMNS: Final = (
    "scope",
    "image",
    "path",
    "format",
    "size_bytes",
    "present_bytes",
    "zero_bytes",
    "absent_bytes",
    "frame_bytes",
    *_COUNTS,
)


def sharing_json(report: SharingReport) -> str:
    """Write a sharing report as one JSON object."""
    return json_document(
        {
            "schema": SHARING_SCHEMA,
            "images": [image_fields(image) for image in report.images],
            "pooled": counts_by_size(report.pooled),
            "caveats": caveat_fields(report.caveats),
        }
    )


def image_json_line(image: ImageSharing) -> str:
    """Write what is known of one image as a line."""
    return _line({"schema": SHARING_SCHEMA, "type": "image", **image_fields(image)})


def pooled_json_line(report: SharingReport) -> str:
    """Write what is known of all images together as the last line."""
    return _line(
        {
            "schema": SHARING_SCHEMA,
            "type": "pooled",
            "pooled": counts_by_size(report.pooled),
            "caveats": caveat_fields(report.caveats),
        }
    )


def sharing_csv(report: SharingReport) -> str:
    """Write a sharing report as CSV: a row an image and frame size, then a row a frame size for all."""
    rows: list[dict[str, object]] = []
    for image in report.images:
        fields = image_fields(image)
        fields |= {"scope": "image", "image": fields["name"]}
        rows.extend(fields | _counts(each) | {"frame_bytes": size} for size, each in image.counts.items())
    rows.extend(
        {"scope": "pooled", **_counts(counts), "frame_bytes": size} for size, counts in report.pooled.items()
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, _CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def inspection_json(inspections: Iterable[Inspection], caveats: Iterable[Caveat]) -> str:
    """Write inspections as one JSON object, with the caveats that concern no single one of them."""
    return json_document(
        {
            "schema": INSPECT_SCHEMA,
            "images": [_inspection(inspection) for inspection in inspections],
            "caveats": caveat_fields(caveats),
        }
    )


def image_fields(image: ImageSharing) -> dict[str, object]:
    """Give what is known of an image, as JSON has it."""
    return {
        "name": encodable(image.name),
        "path": encodable(image.path),
        "format": image.format,
        "size_bytes": image.size_bytes,
        "present_bytes": image.present_bytes,
        "zero_bytes": image.zero_bytes,
        "absent_bytes": image.absent_bytes,
        "counts": counts_by_size(image.counts),
    }


def counts_by_size(counts: Mapping[int, Counts]) -> dict[str, object]:
    """Give counts, as JSON has them, by frame size."""
    return {str(size): _counts(each) for size, each in counts.items()}


def _counts(counts: Counts) -> dict[str, object]:
    return {name: getattr(counts, name) for name in _COUNTS}


def caveat_fields(caveats: Iterable[Caveat]) -> list[object]:
    """Give caveats, as JSON has them."""
    return [
        {
            "code": caveat.code,
            "image": None if caveat.image is None else encodable(caveat.image),
            "message": encodable(caveat.message),
            "advice": caveat.advice,
        }
        for caveat in caveats
    ]


def _inspection(inspection: Inspection) -> dict[str, object]:
    return {
        "name": encodable(inspection.name),
        "path": encodable(inspection.path),
        "format": inspection.format,
        "layout": inspection.layout,
        "tool": None if inspection.tool is None else encodable(inspection.tool),
        "compression": inspection.compression,
        "page_compression": inspection.page_compression,
        "vmcoreinfo": inspection.vmcoreinfo,
        "details": {name: encodable(value) for name, value in inspection.details.items()},
        "file_bytes": inspection.file_bytes,
        "allocated_bytes": inspection.allocated_bytes,
        "size_bytes": inspection.size_bytes,
        "stored_bytes": inspection.bytes_of(RunKind.PRESENT),
        "zero_bytes": inspection.bytes_of(RunKind.ZERO),
        "absent_bytes": inspection.bytes_of(RunKind.ABSENT),
        "left_out": [
            {"address": each.address, "size_bytes": each.size, "what": each.what}
            for each in inspection.left_out
        ],
        "runs": [
            {
                "first_gfn": run.first_gfn,
                "pages": run.pages,
                "kind": run.kind.name.lower(),
            }
            for run in inspection.runs
        ],
        "caveats": caveat_fields(inspection.caveats),
    }


def json_document(content: Mapping[str, object]) -> str:
    """Write one JSON object for people and programs."""
    return json.dumps(content, indent=2) + "\n"


def _line(content: Mapping[str, object]) -> str:
    return json.dumps(content, separators=(",", ":")) + "\n"
