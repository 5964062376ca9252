"""The baseline computes what our network computes."""

import copy

import torch
from torch import nn

from nets.analysis.flops import measure_cost
from nets.inference.detector import Detector
from nets.losses.yolo_loss import YoloLoss
from utils.benchmark.baseline import (
    baseline_detect,
    baseline_network,
    baseline_step,
    make_clocks,
)
from utils.benchmark.session import BenchmarkSession


def varied(detector: Detector) -> Detector:
    """Make the outputs depend on the image, which they hardly do when training starts."""
    network = detector.network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network(torch.rand(8, 3, 64, 64))
    for head in (network.predict32, network.predict16):
        nn.init.normal_(head.weight, std=0.1)
    network.eval()
    return detector


def test_the_baseline_network_agrees_with_ours(session: BenchmarkSession):
    detector = varied(session.detector(precision="fp32"))
    network = baseline_network(detector.network)
    assert all(parameter.is_contiguous() for parameter in network.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    canvases = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    boxes, scores = baseline_detect(network, canvases)
    our_boxes, our_scores = detector.backend(canvases)
    torch.testing.assert_close(boxes / 64, our_boxes / 64, rtol=0, atol=1e-4)
    torch.testing.assert_close(scores, our_scores, rtol=0, atol=1e-4)
    assert scores.std() > 0.01
    cost = measure_cost(network, (64, 64))
    assert cost == measure_cost(detector.network, (64, 64)) and session.gflops == cost.gflops


def test_the_baseline_step_is_a_step_of_plain_gradient_descent(session: BenchmarkSession):
    network = baseline_network(session.detector(precision="fp32").network).train()
    before = copy.deepcopy(network)
    criterion = YoloLoss(network.coder, session.config.loss)
    batch = (session.batch.images.contiguous(), session.batch.boxes, session.batch.labels)
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    baseline_step(network, criterion, optimizer, batch)
    criterion(before(batch[0]), *batch[1:])["loss"].backward()
    for ours, other in zip(network.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(ours, other - 0.01 * other.grad, rtol=1e-4, atol=1e-5)


def test_its_clocks_run(session: BenchmarkSession):
    batch = (session.batch.images, session.batch.boxes, session.batch.labels)
    arrays = [tensor.numpy() for tensor in batch]
    canvas = session.canvas.numpy()
    clocks = make_clocks(session.weights, canvas, 0.1, arrays)
    assert clocks.keys() == {"step", "detect"} and all(clock() > 0 for clock in clocks.values())
    assert make_clocks(session.weights, canvas, 0.1).keys() == {"detect"}
