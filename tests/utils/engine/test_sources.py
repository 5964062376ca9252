"""Images of a dataset, for commands that are given none."""

from nets.loading import load_model
from utils.engine.experiment import Result
from utils.engine.sources import validation_images


def test_validation_images_are_those_of_the_data(trained: Result):
    images = validation_images(load_model(trained.run).config, 5)
    expected = [detections.image for detections in trained.evaluation.detections[:5]]
    assert [image.name for image in images] == expected
    assert all(image.read().shape == (64, 64, 3) for image in images)
