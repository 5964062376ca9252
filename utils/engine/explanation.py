"""Heatmaps of attention and Grad-CAM: what `predict.py --mode heatmap` writes."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from nets import attention
from nets.analysis.attention_maps import SiteAttention, attention_maps
from nets.analysis.gradcam import GradCAM, grad_cam
from nets.inference.detections import Detections, class_labels
from nets.inference.detector import Detector
from nets.yolo.yolov4_tiny import site_hint
from utils.core.errors import UserError, shorten
from utils.core.images import IMAGE_SUFFIXES, Letterbox, write_image
from utils.core.outputs import claimed_outputs
from utils.core.progress import progress_bar
from utils.engine.outputs import Summary, json_list, new_output_folder, unused_path
from utils.engine.sources import ImageSource
from utils.visualization.heatmap import (
    AnnotatedImage,
    BarPanel,
    BranchPanel,
    HeatPanel,
    Panel,
    PanelRow,
    PointPanel,
    TextPanel,
    draw_sheet,
    share_on_padding,
)
from utils.visualization.window import Window

BACKBONE = ("feat1", "feat2", "feat0")  # class activation is shown here if no site is named
TITLES = {
    "channel": "channel attention",
    "spatial": "spatial attention",
    "query": "attention of the starred point",
    "displacement": "displacement, in cells of the map",
    "change": "relative change |y - x| / |x|",
    "branch": "weights of the branches",
    "samples": "points that all queries read",
}
NOTED = 0.01  # smallest share of a query's attention on the padding that is told


@dataclass(frozen=True)
class Focus:
    """What to explain.

    Attributes:
        site: the only site shown; None: those with attention, and the outputs of the backbone.
        point: (x, y) in pixels of the image; None: the center of the explained detection.
        label: class index to explain; None: that of the best detection.
    """

    site: str | None = None
    point: tuple[float, float] | None = None
    label: int | None = None


@dataclass(frozen=True)
class Explanation:
    """What a network looks at in one image.

    Attributes:
        sheets: site -> its sheet, RGB uint8 `(h, w, 3)`.
        overview: all sites in one sheet.
        detections: detections in the image.
    """

    sheets: dict[str, np.ndarray]
    overview: np.ndarray
    detections: Detections


def parse_focus(
    detector: Detector,
    site: str | None = None,
    point: str | None = None,
    class_name: str | None = None,
) -> Focus:
    """Parse and check the options of the command line.

    Args:
        detector: the detector, for its class names.
        site: name of a site.
        point: "x,y" in pixels.
        class_name: name of the class to explain.

    Raises:
        UserError: the site or class does not exist, or the point is malformed.
    """
    if site is not None and site not in detector.network.sites:
        hint = site_hint(site, detector.config.model.heads)
        raise UserError(f"--site {shorten(site)}: no such site{hint}")
    label = None
    if class_name is not None:
        (label,) = class_labels([class_name], detector.names, "--class")
    return Focus(site, None if point is None else _parse_point(point), label)


def _parse_point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ValueError
    except ValueError:
        raise UserError(
            f"--point {shorten(text)}: expected x,y in pixels of the image, e.g. 320,200"
        ) from None
    return x, y


def explain_images(
    detector: Detector,
    images: Sequence[ImageSource],
    focus: Focus,
    out: str | Path | None = None,
    json_path: str | Path | None = None,
    show: bool = False,
) -> Summary:
    """Write a sheet per site, `<image>-<site>.png`, and an overview, `<image>.png`; see `explain`.

    Args:
        detector: the detector to explain.
        images: the images, read one by one.
        focus: what to explain in each.
        out: folder; None: `runs/predict`, then `runs/predict-2`, ... A name in use gets "-2".
        json_path: file for a list of `Detections.to_json()`.
        show: show each image in a window: any key for the next, q or Esc quits.

    Raises:
        UserError: an image cannot be read, an output cannot be written, or there is nothing to show
            in an image.
    """
    if out is not None and Path(out).suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(f"--out {out}: --mode heatmap writes several images, give a folder")
    summary = Summary("images")
    start = time.perf_counter()
    window = Window("attention") if show else None
    with claimed_outputs(("--json", json_path)), json_list(json_path) as add_json:
        for source in progress_bar(images, desc="heatmap", unit="image", leave=True):
            explanation = explain(detector, source.read(), focus, source.name)
            if summary.out is None:
                summary.out = new_output_folder() if out is None else Path(out)
            _write_sheets(explanation, summary.out, Path(source.name).stem)
            detections = replace(explanation.detections, image=source.name)
            add_json(detections.to_json())
            summary.add(detections)
            if window and not window.show(explanation.overview, wait=0):
                summary.stopped = True
                break
    summary.seconds = time.perf_counter() - start
    return summary


def _write_sheets(explanation: Explanation, folder: Path, stem: str) -> None:
    write_image(unused_path(folder / f"{stem}.png"), explanation.overview)
    for site, sheet in explanation.sheets.items():
        write_image(unused_path(folder / f"{stem}-{site}.png"), sheet)


def explain(
    detector: Detector, image: np.ndarray, focus: Focus, name: str = "image"
) -> Explanation:
    """Show what the network attends to in an image: attention maps and Grad-CAM by site.

    Args:
        detector: the detector to explain.
        image: RGB uint8 `(h, w, 3)`.
        focus: what to explain.
        name: name of the image, for titles and errors.

    Raises:
        UserError: the point lies outside the image, or there is neither detection nor attention.
    """
    letterbox = Letterbox((image.shape[0], image.shape[1]), detector.input_size)
    canvas = torch.from_numpy(letterbox.apply(image)).to(detector.device)
    images = canvas.permute(2, 0, 1)[None].float() / 255
    detections = detector(image)
    sites = _sites(detector, focus)
    cam = _activation(detector, images, sites, focus, name)
    box = None if cam is None else letterbox.boxes_to_original(cam.box.numpy()[None])[0]
    point = _point(focus, box, image, name)
    x, y = letterbox.boxes_to_input(np.array([[*point, *point]], np.float32))[0, :2].tolist()
    attended_sites = attention_maps(detector.network, images, (x, y))
    specs = attention.parse_phi(detector.config.phi, detector.config.attention.at)
    rows = {}
    for site in sites:
        attended_site = attended_sites.get(site)
        label = _label(site, specs, attended_site)
        rows[site] = PanelRow(label, _panels(attended_site, cam, site, letterbox))
    drawn = detections
    if cam is not None and box is not None and focus.label is not None:
        drawn = _only(detections, cam, box)
    scene = AnnotatedImage(image, drawn, letterbox, point)
    title = f"{Path(name).name}, {_target(detector, cam)}"
    sheets = {site: draw_sheet(scene, [row], title) for site, row in rows.items()}
    return Explanation(sheets, draw_sheet(scene, list(rows.values()), title), detections)


def _sites(detector: Detector, focus: Focus) -> list[str]:
    """The sites to show, in the order of the forward pass."""
    if focus.site:
        return [focus.site]
    network = detector.network
    return [site for site in network.sites if site in BACKBONE or site in network.attention]


def _activation(
    detector: Detector, images: torch.Tensor, sites: Sequence[str], focus: Focus, name: str
) -> GradCAM | None:
    """Grad-CAM; None, with a note, where there is attention to show but no detection.

    Raises:
        UserError: there is neither.
    """
    cam = grad_cam(detector.network, images, sites, focus.label)
    least = detector.config.predict.score
    if focus.label is not None or cam.score > least:
        return cam
    hint = f"no detection above {least:g} (the best: {detector.names[cam.label]} {cam.score:.3f})"
    advice = "a lower --score or --class NAME explains one"
    if not any(site in detector.network.attention for site in sites):
        raise UserError(f"{name}: {hint} and no attention to show; {advice}")
    tqdm.write(f"note: {name}: {hint}: no class activation; {advice}", file=sys.stderr)
    return None


def _point(
    focus: Focus, box: np.ndarray | None, image: np.ndarray, name: str
) -> tuple[float, float]:
    """The point whose attention query-key blocks show, in pixels of the image."""
    height, width = image.shape[:2]
    if focus.point is not None:
        x, y = focus.point
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(
                f"--point {x:g},{y:g}: lies outside {name}, which is {width} x {height} pixels"
            )
        return focus.point
    if box is None:
        return width / 2, height / 2
    return float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2


def _label(
    site: str, specs: Mapping[str, attention.Spec], attended_site: SiteAttention | None
) -> str:
    """The label of a row: site, block, map shape, and the learned alpha of an identity start."""
    if attended_site is None:
        return f"{site}\nno attention"
    alpha = attended_site.alpha
    opened = "" if alpha is None else f"\nalpha {alpha:.3f}"
    shape = " x ".join(map(str, attended_site.shape))
    return f"{site}: {attention.describe(specs[site])}\n{shape}{opened}"


def _panels(
    attended_site: SiteAttention | None, cam: GradCAM | None, site: str, letterbox: Letterbox
) -> list[Panel]:
    panels = []
    if cam is not None:
        panels.append(_cam_panel(cam.heatmaps[site], cam.stride))
    if attended_site is not None:
        for kind, values in attended_site.maps.items():
            panels.append(_map_panel(kind, values.numpy(), letterbox))
    return panels


def _map_panel(kind: str, values: np.ndarray, letterbox: Letterbox) -> Panel:
    if kind == "channel":
        return BarPanel(TITLES[kind], values)
    if kind == "branch":
        return BranchPanel(TITLES[kind], values)
    if kind == "samples":
        return PointPanel(TITLES[kind], values)
    if kind != "query":
        return HeatPanel(TITLES[kind], values)
    padding = share_on_padding(values, letterbox)
    note = f"{padding:.0%} of it on the padding" if padding >= NOTED else ""
    return HeatPanel(TITLES[kind], values, "magma", marked=True, note=note)


def _cam_panel(heat: torch.Tensor | None, stride: int) -> Panel:
    title = "class activation (Grad-CAM)"
    if heat is None:
        reason = (
            f"the prediction comes from\nthe stride {stride} head, which\nthis map does not feed"
        )
        return TextPanel(title, reason)
    if not heat.any():
        return TextPanel(title, "no position supports\nthe prediction")
    return HeatPanel(title, (heat / heat.max()).numpy(), "turbo")


def _target(detector: Detector, cam: GradCAM | None) -> str:
    if cam is None:
        return "no detection"
    return f"explained: {detector.names[cam.label]} {cam.score:.2f}"


def _only(detections: Detections, cam: GradCAM, box: np.ndarray) -> Detections:
    """The explained prediction alone; a named class need not be among the detections."""
    score, label = np.array([cam.score], np.float32), np.array([cam.label])
    return replace(detections, boxes=box[None], scores=score, labels=label)
