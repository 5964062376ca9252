"""A window that cannot be opened."""

import cv2
import pytest

from utils.core.errors import UserError
from utils.visualization.window import Window


def test_no_screen_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise cv2.error("not implemented")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", fail)
    with pytest.raises(UserError, match="opencv-python"):
        Window("x")
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(UserError, match="--show"):
        Window("x")
