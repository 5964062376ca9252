"""What a dataset's folder holds: its format, and which of its splits are used."""

from collections.abc import Callable, Sequence
from pathlib import Path

from utils.core.errors import UserError
from utils.core.inputs import is_file
from utils.core.schema import DataConfig
from utils.data.readers import coco_files, voc, yolo
from utils.data.readers.base import require_folder
from utils.data.readers.folder_tree import ALL, TRAIN_NAMES, VAL_NAMES, FolderTree, base_name
from utils.data.readers.yolo_description import find_description

FILE_FORMATS = {".yaml": "yolo", ".yml": "yolo", ".data": "yolo", ".json": "coco"}
TITLES = {"voc": "Pascal VOC annotations", "coco": "COCO annotations", "yolo": "YOLO labels"}
LIST_SPLITS: dict[str, Callable[[DataConfig], Sequence[str]]] = {
    "voc": voc.list_splits,
    "coco": coco_files.list_splits,
    "yolo": yolo.list_splits,
}
VAL_SHARE = 0.2  # if the dataset has no validation split


def resolve(data: DataConfig) -> tuple[DataConfig, list[str]]:
    """Settle what `data` leaves to the dataset: the format, and the names of the splits.

    Args:
        data: format, folder and splits as configured.

    Returns:
        The same with a format that is not `auto` and splits that exist. If the training split is to
        be divided, `val` is `train`, and `val_share` is set. Also lines that say what was found.

    Raises:
        UserError: the folder holds no dataset that is recognized.
    """
    if "://" in data.root:
        raise UserError(f"data.root={data.root}: is an address, expected a folder")
    if data.format == "shapes" or (data.format == "auto" and not data.root):
        return data.model_copy(update={"format": "shapes"}), []
    notes = []
    is_auto = data.format == "auto"
    if is_auto:
        data = data.model_copy(update={"format": recognize(Path(data.root))})
        notes.append(f"{data.root}: {TITLES[data.format]} (data.format={data.format})")
    train, val = _choose_splits(data, LIST_SPLITS[data.format](data), is_auto)
    share = data.val_share
    if share is not None:
        val = train
    elif train == val and (is_auto or train == ALL):
        share = VAL_SHARE
    if train == val and share is not None:
        source = "all images" if train == ALL else f"split '{train}'"
        notes.append(
            f"validation: {100 * share:g}% of {source} "
            f"(data.val_share={share:g}, data.split_seed={data.split_seed})"
        )
    elif (train, val) != (data.train, data.val):
        notes.append(f"training split: {train}, validation split: {val} (data.train, data.val)")
    return data.model_copy(update={"train": train, "val": val, "val_share": share}), notes


def recognize(root: Path) -> str:
    """Return the format of a dataset.

    Args:
        root: its folder, or a file that describes it.

    Raises:
        UserError: there is no dataset in any of the formats.
    """
    if is_file(root):
        known = FILE_FORMATS.get(root.suffix.lower())
        if known is None:
            raise UserError(f"data.root: expected a folder, data.yaml or JSON file, got {root}")
        return known
    require_folder(root, "data.root")
    if voc.list_names(root):
        return "voc"
    if find_description(root) is not None:
        return "yolo"
    if coco_files.find_files(root):
        return "coco"
    for name, suffix in (("voc", ".xml"), ("yolo", ".txt")):
        tree = FolderTree(root, suffix)
        if tree.has_annotations():
            return name
    found = f"{len(tree.images)} images without annotations" if tree.images else "no images"
    raise UserError(
        f"data.root: {root}: found {found}; expected a dataset in Pascal VOC, COCO or YOLO format "
        "(see docs/datasets.md)"
    )


def _choose_splits(data: DataConfig, splits: Sequence[str], divides: bool) -> tuple[str, str]:
    """The training and the validation split; the same one if it is to be divided."""
    train = _find(data, "train", TRAIN_NAMES, splits)
    tested = (data.test or "").lower()
    val = _find(data, "val", VAL_NAMES, [split for split in splits if split.lower() != tested])
    if train is None and val is None and len(splits) < 2:
        only = splits[0] if splits else ALL
        return (only, only) if splits or data.format != "coco" else (data.train, data.val)
    if val is None:
        val = train if divides else data.val
    return train or data.train, val or data.val


def _find(data: DataConfig, key: str, names: Sequence[str], splits: Sequence[str]) -> str | None:
    """The split that `data.<key>` names; its usual names count if the key has its default.

    `train2017` counts as `train`. Of two such splits none is chosen; reading says what there is.
    """
    wanted = getattr(data, key)
    if wanted in splits or wanted != DataConfig.model_fields[key].default:
        return wanted
    for name in names:
        found = [split for split in splits if base_name(split) == name]
        if found:
            return found[0] if len(found) == 1 else wanted
    return None
