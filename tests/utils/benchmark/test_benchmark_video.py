"""The clip, the stages and the memory."""

import mmap
from pathlib import Path

import pytest

from utils.benchmark import video
from utils.benchmark.bench import Bench


def test_the_stages_and_the_pipeline_see_every_frame(bench: Bench, tmp_path: Path):
    clip = video.write_clip(tmp_path / "clip.mp4", 6)
    frames, predict = video.decode(clip), video.predictor(bench)
    assert len(frames) == 6 and frames[0].shape == (480, 640, 3)
    found = list(predict(frames))
    assert [len(one) for one in found] == [video.BOXES] * 6 and found[0].width == 640
    video.render(tmp_path / "drawn.mp4", frames, found)
    assert len(video.decode(tmp_path / "drawn.mp4")) == 6
    seen: list[int] = []
    assert (
        video.pipeline(clip, tmp_path / "out.mp4", predict, lambda index, _: seen.append(index))
        == 6
    )
    assert seen == list(range(6))


def test_memory_that_grows_is_told():
    assert video.memory_growth([100, 110, 105, 110]) == pytest.approx(0)
    assert video.memory_growth([100, 110, 121, 115]) == pytest.approx(10)


def test_memory_in_use():
    before = video.resident()
    if before is None:
        pytest.skip("needs /proc/self/statm")
    with mmap.mmap(-1, 64 * 2**20) as held:  # not the allocator's, which may have some left
        held.write(b"x" * len(held))
        assert video.resident() - before == pytest.approx(64, abs=16)
