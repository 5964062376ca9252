"""The clip, the stages and the memory."""

import re
from pathlib import Path

import pytest

from utils.benchmark import video
from utils.benchmark.session import BenchmarkSession


def test_the_stages_and_the_pipeline_see_every_frame(session: BenchmarkSession, tmp_path: Path):
    clip = video.write_clip(tmp_path / "clip.mp4", 6)
    frames = video.decode(clip)
    assert [frame.shape for frame in frames] == [(480, 640, 3)] * 6
    predict = video.make_predict(session)
    detections = list(predict(frames))
    assert [len(own) for own in detections] == [video.BOXES] * 6 and detections[0].width == 640
    video.render(tmp_path / "drawn.mp4", frames, detections)
    assert len(video.decode(tmp_path / "drawn.mp4")) == 6
    seen: list[int] = []
    out = tmp_path / "out.mp4"
    assert video.run_pipeline(clip, out, predict, lambda index, _: seen.append(index)) == 6
    assert seen == list(range(6))


def test_growing_memory_is_reported():
    assert video.memory_growth([100, 110, 105, 110]) == pytest.approx(0)
    assert video.memory_growth([100, 110, 121, 115]) == pytest.approx(10)


def test_memory_in_use():
    found = video.resident_mib()
    if found is None:
        pytest.skip("needs /proc/self/statm")
    status = Path("/proc/self/status").read_text()  # read at once: other threads allocate, too
    kib = re.search(r"VmRSS:\s*(\d+) kB", status)
    assert kib and found == pytest.approx(int(kib[1]) / 1024, rel=0.1)
