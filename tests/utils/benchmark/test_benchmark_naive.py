"""The yardstick computes what our network computes, only in another way."""

import copy

import torch

from nets.analysis.flops import measure_cost
from nets.losses.yolo_loss import YoloLoss
from utils.benchmark.bench import Bench
from utils.benchmark.naive import make_clocks, naive_detect, naive_network, naive_step


def test_the_naive_network_agrees_with_ours(bench: Bench):
    detector = bench.detector(precision="fp32")
    for module in (
        detector.network.train().modules()
    ):  # at a training's start the image hardly reaches the heads
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        detector.network(torch.rand(8, 3, 64, 64))
    detector.network.eval()
    for head in (detector.network.predict32, detector.network.predict16):
        torch.nn.init.normal_(head.weight, std=0.1)
    network = naive_network(detector.network)
    weight = next(
        parameter
        for parameter in network.parameters()
        if parameter.ndim == 4 and parameter.shape[2] > 1
    )
    assert weight.is_contiguous() and all(p.dtype == torch.float32 for p in network.parameters())
    canvases = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    boxes, scores = naive_detect(network.eval(), canvases)
    our_boxes, our_scores = detector.backend(canvases)
    torch.testing.assert_close(boxes / 64, our_boxes / 64, rtol=0, atol=1e-4)
    torch.testing.assert_close(scores, our_scores, rtol=0, atol=1e-4)
    assert scores.std() > 0.01
    assert measure_cost(network, (64, 64)) == measure_cost(detector.network, (64, 64))
    assert bench.gflops == measure_cost(network, (64, 64)).gflops


def test_the_naive_step_is_a_step_of_plain_gradient_descent(bench: Bench):
    network = naive_network(bench.detector(precision="fp32").network).train()
    before = copy.deepcopy(network)
    criterion, optimizer = (
        YoloLoss(network.coder, bench.config.loss),
        torch.optim.SGD(network.parameters(), 0.01),
    )
    batch, images = bench.batch, bench.batch.images.contiguous()
    naive_step(network, criterion, optimizer, images, batch.boxes, batch.labels)
    loss = criterion(before(images), batch.boxes, batch.labels)["loss"]
    loss.backward()
    for mine, other in zip(network.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(mine, other - 0.01 * other.grad, rtol=1e-4, atol=1e-5)


def test_its_clocks_run(bench: Bench):
    torch.save(vars(bench.batch), bench.folder / "b.pt")
    torch.save(bench.canvas, bench.folder / "c.pt")
    clocks = make_clocks(bench.weights, bench.folder / "b.pt", bench.folder / "c.pt", block=0.1)
    assert clocks.keys() == {"step", "detect"} and all(clock() > 0 for clock in clocks.values())
    assert make_clocks(bench.weights, None, bench.folder / "c.pt", block=0.1).keys() == {"detect"}
