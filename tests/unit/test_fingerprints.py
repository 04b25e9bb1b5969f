from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

import hvshare
from hvshare.errors import SizeError, WorkerError
from hvshare.fingerprint import pages as pages_module
from hvshare.fingerprint import workers
from hvshare.fingerprint.pages import ZERO_DIGEST, BlockBuffer, digest_pages, fill_digests
from hvshare.fingerprint.workers import DigestBatch, Workers, perform, plan
from hvshare.images.image import PageBlock
from hvshare.images.runs import RunKind
from tests.guests import MemoryImage, content, vms_with_gaps
from tests.oracle import PAGE


@given(vms_with_gaps, st.integers(1, 25), st.integers(1, 9), st.integers(1, 5))
def test_blocks_and_tasks_of_any_size_give_the_same_digests(
    vm: list[bytes | None], block_pages: int, task_pages: int, chunk_pages: int
) -> None:
    image = MemoryImage("vm", vm)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "_BATCH_PAGES", task_pages)
        found: dict[int, int] = {}
        for task in plan([image]):
            for message in perform(task, [image], BlockBuffer(block_pages, chunk_pages)):
                assert isinstance(message, DigestBatch)
                digests = np.frombuffer(message.digests, np.uint64).tolist()
                found.update(enumerate(digests, message.position))
    stored = [page for page in vm if page is not None]
    assert [found[position] for position in range(len(found))] == [
        xxhash.xxh3_64(page).intdigest() for page in stored
    ]


def test_zero_is_told_by_content(monkeypatch: pytest.MonkeyPatch) -> None:
    # A content that collides with zero cannot be made, so the digest is made to collide.
    monkeypatch.setattr(pages_module, "xxh3_64_intdigest", lambda _page: ZERO_DIGEST)
    found = digest_pages([memoryview(content(0)), memoryview(content(1))])
    assert found.tolist() == [ZERO_DIGEST, ZERO_DIGEST ^ 1]


def test_digest_of_a_large_frame_is_that_of_its_page_digests() -> None:
    vm = [content(number % 200) for number in range(512)]
    (fingerprints,) = hvshare.fingerprint_images([MemoryImage("vm", vm)])
    frames = fingerprints.frames(2 << 20)
    page_digests = b"".join(xxhash.xxh3_64(page).intdigest().to_bytes(8, "little") for page in vm)
    assert frames.digests.tolist() == [xxhash.xxh3_64(page_digests).intdigest()]


def test_zero_frames_of_every_size_have_the_digest_of_zero() -> None:
    (fingerprints,) = hvshare.fingerprint_images([MemoryImage("vm", [content(0)] * 1024)])
    for size in (PAGE, 64 << 10, 2 << 20):
        frames = fingerprints.frames(size)
        assert set(frames.digests.tolist()) == {ZERO_DIGEST}
        assert frames.zero == frames.frames == 1024 * PAGE // size


@pytest.mark.parametrize("size", [0, 1, 2048, 4097, 12288, 2 << 30])
def test_sizes_that_frames_cannot_have(size: int) -> None:
    (fingerprints,) = hvshare.fingerprint_images([MemoryImage("vm", [content(0)])])
    with pytest.raises(SizeError):
        fingerprints.frames(size)


def test_fill_patterns_are_known_by_digest() -> None:
    assert fill_digests()[xxhash.xxh3_64(b"\xcc" * PAGE).intdigest()] == 0xCC


def big_image(pages: int = 3 * workers._WORTH_FORKING) -> MemoryImage:
    return MemoryImage("big", [content(number % 250) for number in range(pages)])


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_processes_give_what_one_process_gives() -> None:
    image = big_image()
    alone = hvshare.fingerprint_images([image], jobs=1)[0]
    together = hvshare.fingerprint_images([image], jobs=3)[0]
    assert np.array_equal(alone.digests, together.digests)
    assert image.runs.pages_of(RunKind.PRESENT) == len(together.digests)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_a_worker_that_dies_is_told() -> None:
    class Deadly(MemoryImage):
        def blocks(self, buffer: memoryview, span: tuple[int, int] | None = None) -> Iterator[PageBlock]:
            os.kill(os.getpid(), signal.SIGKILL)
            yield from super().blocks(buffer, span)

    images = [Deadly("deadly", [content(1)] * 3 * workers._WORTH_FORKING)]
    with Workers(images, jobs=2) as running, pytest.raises(WorkerError, match="signal 9"):
        list(running)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_a_defect_in_a_worker_is_told_without_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    class Defective(MemoryImage):
        def blocks(self, buffer: memoryview, span: tuple[int, int] | None = None) -> Iterator[PageBlock]:
            raise RuntimeError("nonsense")

    images = [Defective("defective", [content(1)] * 3 * workers._WORTH_FORKING)]
    with pytest.raises(WorkerError, match="RuntimeError: nonsense"):
        hvshare.fingerprint_images(list(images), jobs=2)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_leaving_early_leaves_no_process() -> None:
    with Workers([big_image()], jobs=2) as running:
        pids = [worker.pid for worker in running._workers]
        next(iter(running))
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
