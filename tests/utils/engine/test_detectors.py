"""Detectors as commands open them."""

from nets.loading import load_model
from utils.engine.detectors import calibration_images, describe, open_detector
from utils.engine.experiment import Result


def test_a_detector_in_one_line(trained: Result):
    line = describe(load_model(trained.run, input_size=(64, 96)))
    assert line == "6 classes, phi none, 96x64, cpu, fp32"


def test_calibration_images_are_spread_over_the_training_split(trained: Result):
    detector = open_detector(trained.run)
    canvases = calibration_images(detector.config, detector.names, count=4)
    every = calibration_images(detector.config, detector.names)
    assert every.shape == (16, 64, 64, 3)
    assert (canvases == every[::4]).all()
