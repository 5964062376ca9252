"""Attention images: what `predict.py --mode heatmap` writes."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from nets import attention
from nets.analysis.attend import Activation, Attended, activation, attended
from nets.inference.detections import Detections
from nets.inference.detector import Detector
from nets.yolo.yolov4_tiny import SITES
from utils.core.errors import UserError, nearest
from utils.core.images import IMAGE_SUFFIXES, Letterbox
from utils.core.progress import progress_bar
from utils.engine.outputs import free, fresh_folder, json_list
from utils.engine.prediction import Picture, Summary
from utils.visualization.boxes import write_image
from utils.visualization.heatmap import (
    AnnotatedImage,
    BarPanel,
    BranchPanel,
    HeatPanel,
    Panel,
    PanelRow,
    TextPanel,
    draw_sheet,
)
from utils.visualization.window import Window

BACKBONE = ("feat1", "feat2")  # class activation is shown here where no site is named
TITLES = {
    "channel": "channel attention",
    "spatial": "spatial attention",
    "query": "attention of the starred point",
    "displacement": "displacement, in cells of the map",
    "change": "relative change |y - x| / |x|",
    "branch": "weights of the branches",
}
COLORS = {"query": "magma"}  # others: viridis; class activation: turbo


@dataclass(frozen=True)
class Wanted:
    """What is to be shown.

    Attributes:
        site: the only site; none: those with attention, and feat1 and feat2.
        point: (x, y) in pixels of the image; none: the middle of the explained detection.
        label: class index to explain; none: the best detection's.
    """

    site: str | None = None
    point: tuple[float, float] | None = None
    label: int | None = None


@dataclass(frozen=True)
class Explained:
    """One image's sheets (RGB uint8): by site and `whole`, all in one; its detections."""

    sites: dict[str, np.ndarray]
    whole: np.ndarray
    detections: Detections


def wanted(
    detector: Detector, site: str | None = None, point: str | None = None, name: str | None = None
) -> Wanted:
    """The options of the command line, checked; `point` is "x,y", `name` a class.

    Raises:
        UserError: no such site or class, or not a point.
    """
    if site is not None and site not in SITES:
        raise UserError(f"--site {site}: no such site{nearest(site, SITES)}")
    if name is not None and name not in detector.names:
        raise UserError(f"--class {name}: not in the class list{nearest(name, detector.names)}")
    return Wanted(site, _point(point), None if name is None else detector.names.index(name))


def _point(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--point {text}: expected x,y in pixels of the image, e.g. 320,200"
        ) from None
    return x, y


def explain_images(
    detector: Detector,
    pictures: Sequence[Picture],
    want: Wanted,
    out: str | Path | None = None,
    json_path: str | Path | None = None,
    show: bool = False,
) -> Summary:
    """Write a sheet a site, `<image>-<site>.png`, and one of all sites, `<image>.png`; see `explain`.

    Args:
        out: folder; none: `runs/predict`, then `runs/predict-2`, ... A name that is taken gets "-2".
        json_path: also a JSON list of `Detections.to_json()`. show: a window a picture.

    Raises:
        UserError: an image cannot be read, `explain` has nothing to show, or an output cannot be written.
    """
    if out is not None and Path(out).suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(f"--out {out}: --mode heatmap writes several images, give a folder")
    summary, start = Summary("images"), time.perf_counter()
    with ExitStack() as stack:
        add = stack.enter_context(json_list(json_path))
        window = Window("attention") if show else None
        for name, read in progress_bar(pictures, desc="heatmap", unit="image", leave=True):
            explained = explain(detector, read(), want, name)
            summary.out = summary.out or (fresh_folder() if out is None else Path(out))
            stem = Path(name).stem
            write_image(free(summary.out / f"{stem}.png"), explained.whole)
            for site, picture in explained.sites.items():
                write_image(free(summary.out / f"{stem}-{site}.png"), picture)
            found = replace(explained.detections, image=name)
            add(found.to_json())
            summary.done += 1
            summary.counts.update(found.names[int(label)] for label in found.labels)
            if window and not window.show(explained.whole, wait=0):
                summary.stopped = True
                break
    summary.seconds = time.perf_counter() - start
    return summary


def explain(detector: Detector, image: np.ndarray, want: Wanted, name: str = "image") -> Explained:
    """Show what the network attends to in an image: every block's maps, and class activation at every shown site.

    Args:
        image: RGB uint8 `(h, w, 3)`. name: for titles and errors.

    Raises:
        UserError: the point lies outside the image; or there is neither a detection to explain nor attention.
    """
    boxing = Letterbox((image.shape[0], image.shape[1]), detector.input_size)
    canvas = torch.from_numpy(boxing.apply(image)).to(detector.device)
    images = canvas.permute(2, 0, 1)[None].float() / 255
    detections = detector(image)
    sites = _sites(detector, want)
    active = _activation(detector, images, sites, want, name)
    box = None if active is None else boxing.boxes_to_original(active.box.numpy()[None])[0]
    point = _place(want, box, image, name)
    x, y = boxing.boxes_to_input(np.array([[*point, *point]], np.float32))[0, :2].tolist()
    seen = attended(detector.network, images, (x, y))
    specs = attention.parse_phi(detector.config.phi, detector.config.attention.at)
    rows = {
        site: PanelRow(_label(site, specs, seen.get(site)), _panels(seen.get(site), active, site))
        for site in sites
    }
    shown = detections if active is None or want.label is None else _only(detections, active, box)
    scene = AnnotatedImage(image, shown, boxing, point)
    title = f"{Path(name).name}, {_target(detector, active)}"
    single = {site: draw_sheet(scene, [row], title) for site, row in rows.items()}
    return Explained(single, draw_sheet(scene, list(rows.values()), title), detections)


def _sites(detector: Detector, want: Wanted) -> list[str]:
    """The sites to show, in the order of the forward pass."""
    if want.site:
        return [want.site]
    return [site for site in SITES if site in BACKBONE or site in detector.network.attention]


def _activation(
    detector: Detector, images: torch.Tensor, sites: Sequence[str], want: Wanted, name: str
) -> Activation | None:
    """Class activation; None, with a note, where there is no detection but attention to show.

    Raises:
        UserError: there is neither.
    """
    active = activation(detector.network, images, sites, want.label)
    least = detector.config.predict.score
    if want.label is not None or active.score > least:
        return active
    hint = f"no detection above {least:g} (the best: {detector.names[active.label]} {active.score:.3f})"
    advice = "a lower --score or --class NAME explains one"
    if not any(site in detector.network.attention for site in sites):
        raise UserError(f"{name}: {hint} and no attention to show; {advice}")
    tqdm.write(f"note: {name}: {hint}: no class activation; {advice}", file=sys.stderr)
    return None


def _place(
    want: Wanted, box: np.ndarray | None, image: np.ndarray, name: str
) -> tuple[float, float]:
    """The point that query-key blocks are asked about, in pixels of the picture."""
    height, width = image.shape[:2]
    if want.point is not None:
        x, y = want.point
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(
                f"--point {x:g},{y:g}: lies outside {name}, which is {width} x {height} pixels"
            )
        return want.point
    if box is None:
        return width / 2, height / 2
    return float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2


def _label(site: str, specs: Mapping[str, attention.Spec], seen: Attended | None) -> str:
    """The name of a row: site, block, and how far an identity start has opened."""
    if seen is None:
        return f"{site}\nno attention"
    opened = "" if seen.alpha is None else f"\nalpha {seen.alpha:.3f}"
    shape = " x ".join(map(str, seen.shape))
    return f"{site}: {attention.describe(specs[site])}\n{shape}{opened}"


def _panels(seen: Attended | None, active: Activation | None, site: str) -> list[Panel]:
    maps = {} if seen is None else seen.maps
    first = [] if active is None else [_activation_panel(active.heat[site])]
    return [*first, *(_panel(kind, values.numpy()) for kind, values in maps.items())]


def _panel(kind: str, values: np.ndarray) -> Panel:
    if kind == "channel":
        return BarPanel(TITLES[kind], values)
    if kind == "branch":
        return BranchPanel(TITLES[kind], values)
    return HeatPanel(TITLES[kind], values, COLORS.get(kind, "viridis"), marked=kind == "query")


def _activation_panel(heat: torch.Tensor | None) -> Panel:
    title = "class activation (Grad-CAM)"
    if heat is None:
        return TextPanel(title, "the prediction does not\ndepend on this map")
    if not heat.any():
        return TextPanel(title, "no position speaks\nfor the prediction")
    return HeatPanel(title, (heat / heat.max()).numpy(), "turbo")


def _target(detector: Detector, active: Activation | None) -> str:
    if active is None:
        return "no detection"
    return f"explained: {detector.names[active.label]} {active.score:.2f}"


def _only(detections: Detections, active: Activation, box: np.ndarray | None) -> Detections:
    """The explained prediction alone; a named class need not be among the detections."""
    assert box is not None
    score, label = np.array([active.score], np.float32), np.array([active.label])
    return replace(detections, boxes=box[None], scores=score, labels=label)
