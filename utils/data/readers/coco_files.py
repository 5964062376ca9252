"""Where the JSON files and images of a COCO dataset lie; `utils.data.readers.coco` reads them."""

from pathlib import Path

from utils.core.errors import UserError, nearest
from utils.core.inputs import find_first, is_file, list_folder, read_file
from utils.core.schema import DataConfig
from utils.data.readers.folder_tree import ALL, role_of

ROBOFLOW_FILE = "_annotations.coco.json"
REQUIRED_KEYS: dict[str, set[str]] = {  # list -> keys that each of its entries must have
    "images": {"file_name", "id"},
    "annotations": set(),
    "categories": {"id", "name"},
}


def json_file(data: DataConfig, split: str) -> Path:
    """The annotation file of a split.

    Raises:
        UserError: the split has no annotation file.
    """
    root = Path(data.root)
    if is_file(root):
        return root
    folder = root / "annotations"
    if split.endswith(".json"):
        candidates = [Path(split), root / split, folder / split]
    else:
        candidates = [folder / f"instances_{split}.json", folder / f"{split}.json"]
    path = find_first(candidates) or find_files(root).get(split)
    if path is not None:
        return path
    known = sorted(find_files(root))
    if known:
        hint = nearest(split, known)
    else:
        hint = "; set data.root=FOLDER to a folder with annotations/ and images"
    raise UserError(f"data: no COCO file {candidates[0]} for split '{split}'{hint}")


def find_files(root: Path) -> dict[str, Path]:
    """The annotation files below a folder, by split; damaged ones only under the usual names."""
    files = {}
    for folder in (root, root / "annotations"):
        for name in list_folder(folder):
            split = Path(name).stem.removeprefix("instances_")
            is_usual = folder != root and (name.startswith("instances_") or role_of(split))
            if name.endswith(".json") and (is_usual or _looks_like_coco(folder / name)):
                files[split] = folder / name
    for name in list_folder(root):
        path = root / name / ROBOFLOW_FILE
        if find_first([path]):
            files[name] = path
    return files


def _looks_like_coco(path: Path) -> bool:
    """Whether a file has COCO's keys; other JSON files may lie beside it."""
    if not is_file(path):
        return False
    content = read_file(path)
    return all(f'"{key}"'.encode() in content for key in REQUIRED_KEYS)


def list_splits(data: DataConfig) -> list[str]:
    """The names of the splits: those of the annotation files, or of their folders."""
    root = Path(data.root)
    return [ALL] if is_file(root) else list(find_files(root))


def image_folders(root: Path, path: Path, split: str) -> list[Path]:
    """Folders where the images may be, the most likely first."""
    if path == root and path.parent.name != "annotations":
        return [root.parent, root.parent / "images"]
    if path.name == ROBOFLOW_FILE:
        return [path.parent]
    file_name = path.stem.removeprefix("instances_")
    names = [file_name] if split.endswith(".json") or path == root else [split, file_name]
    if path == root:
        root = path.parent.parent
    folders = []
    for name in dict.fromkeys(names):
        folders += [root / name, root / "images" / name]
    return [*folders, root / "images", root, path.parent]
