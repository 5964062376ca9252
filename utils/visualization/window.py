"""A window on the screen."""

import os
import sys
from contextlib import AbstractContextManager

import cv2
import numpy as np

from utils.core.errors import UserError

ESCAPE = 27


class Window(AbstractContextManager["Window"]):
    """A window that shows images and is closed at the end of the `with` block.

    Args:
        title: title of the window.

    Raises:
        UserError: there is no screen, or OpenCV was built without window support.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        has_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        if sys.platform.startswith("linux") and not has_screen:
            raise UserError(
                "--show needs a screen, but neither DISPLAY nor WAYLAND_DISPLAY is set; "
                "leave --show out"
            )
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error:
            raise UserError(
                "--show needs opencv-python: this OpenCV (opencv-python-headless?) has no windows"
            ) from None

    def show(self, image: np.ndarray, wait: int = 1) -> bool:
        """Show an image.

        Args:
            image: RGB uint8 `(h, w, 3)`.
            wait: milliseconds to wait for a key; 0: until one is pressed.

        Returns:
            False once the user has pressed q or Esc, or closed the window.
        """
        cv2.imshow(self.title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(wait) & 0xFF
        if key in (ord("q"), ESCAPE):
            return False
        return cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        cv2.destroyWindow(self.title)

    def __exit__(self, *_: object) -> None:
        self.close()
