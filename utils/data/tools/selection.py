"""Datasets that are to be written: several joined, and classes kept, merged and renamed."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from utils.core.class_names import checked_names
from utils.core.errors import UserError, nearest, shorten
from utils.data.loading import renumber
from utils.data.sample import Sample
from utils.data.splitting import stratify
from utils.data.tools.inventory import Inventory, join_names, role_of


@dataclass(frozen=True)
class ClassChanges:
    """What happens to the classes, as words of the command line.

    Attributes:
        keep: classes that are kept, in their new order; empty: all.
        merge: `new=old,old`.
        rename: `old=new`.
    """

    keep: Sequence[str] = ()
    merge: Sequence[str] = ()
    rename: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.keep or self.merge or self.rename)


@dataclass
class Selection:
    """Images that are to be written.

    Attributes:
        class_names: what the labels index.
        splits: `train`, `val`, `test` or another name -> its images.
        dropped: class -> number of objects that were left out.
    """

    class_names: tuple[str, ...]
    splits: dict[str, list[Sample]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)


def join(inventories: Sequence[Inventory]) -> Selection:
    """All images of one or several datasets, by what their splits are for."""
    names = join_names([inventory.class_names for inventory in inventories])
    selection = Selection(names)
    for inventory in inventories:
        for name, contents in inventory.splits.items():
            role = role_of(name) or _role_in_training(name, inventory)
            samples = renumber(contents, names, inventory.data.root).samples
            selection.splits.setdefault(role, []).extend(samples)
    return selection


def _role_in_training(split: str, inventory: Inventory) -> str:
    """What a training uses a split for; its own name, fit for files and folders, if it does not."""
    roles = {inventory.data.val: "val", inventory.data.train: "train"}
    return roles.get(split) or re.sub(r"[^\w.-]+", "-", split).strip(".-") or "other"


def divide_anew(
    selection: Selection, shares: Mapping[str, float], seed: int, divided: Sequence[str]
) -> None:
    """Divide images into `train`, `val` and perhaps `test`; see `stratify`.

    Args:
        selection: its splits are replaced; an image that is in two of them is used once.
        shares: name -> share of the images, the first of them the training split.
        seed: another one gives another division.
        divided: splits that are divided, the others stay; empty: all are divided together.

    Raises:
        UserError: a split is unknown, or an image would be in a split that stays.
    """
    for name in divided:
        if name not in selection.splits:
            raise UserError(f"--of: there is no split '{name}'{nearest(name, selection.splits)}")
    chosen = list(divided) or list(selection.splits)
    pool = {sample.path: sample for name in chosen for sample in selection.splits.pop(name)}
    for name in shares:
        if name in selection.splits:
            raise UserError(f"--of: the split '{name}' exists and stays: add it to --of")
    samples = list(pool.values())
    parts = stratify(samples, list(shares.values()), seed)
    kept = selection.splits
    selection.splits = {
        name: [samples[index] for index in indices]
        for name, indices in zip(shares, parts, strict=True)
    }
    for name, part in selection.splits.items():
        if not part:
            raise UserError(f"{len(samples)} images are too few to divide: none is left for {name}")
    selection.splits.update(kept)


def change_classes(selection: Selection, changes: ClassChanges) -> None:
    """Keep, merge and rename classes.

    An image whose objects are all left out stays as one without objects.

    Raises:
        UserError: a class is unknown, or a new name is taken or cannot be used.
    """
    names = selection.class_names
    new_name = _merged(names, changes.merge)
    new_name.update(_renamed(names, changes.rename))
    kept = tuple(dict.fromkeys(new_name.values()))
    checked_names(kept, "--merge, --rename")
    for name in changes.keep:
        if name not in kept:
            raise UserError(f"--classes: there is no class '{shorten(name)}'{nearest(name, kept)}")
    if changes.keep:
        kept = checked_names(changes.keep, "--classes")
    numbers = [kept.index(new) if new in kept else -1 for new in map(new_name.get, names)]
    selection.class_names = kept
    for samples in selection.splits.values():
        for index, sample in enumerate(samples):
            samples[index] = _with_labels(sample, np.array(numbers, np.int64)[sample.labels])
            lost = [names[label] for label in sample.labels.tolist() if numbers[label] < 0]
            selection.dropped.update(lost)


def _with_labels(sample: Sample, labels: np.ndarray) -> Sample:
    keep = labels >= 0
    return replace(
        sample,
        boxes=sample.boxes[keep],
        labels=labels[keep],
        difficult=sample.difficult[keep],
        crowd=sample.crowd[keep],
    )


def _merged(names: Sequence[str], words: Sequence[str]) -> dict[str, str]:
    """Old name -> new name, of every class."""
    new_name = {name: name for name in names}
    for word in words:
        new, equals, listed = word.partition("=")
        parts = [listed] if listed in names else listed.split(",")
        if not equals or not new:
            raise UserError(f"--merge {shorten(word)}: expected NEW=OLD,OLD")
        for old in parts:
            if old not in new_name:
                raise UserError(
                    f"--merge {shorten(word)}: there is no class '{shorten(old)}'"
                    f"{nearest(old, names)}"
                )
            new_name[old] = new
    return new_name


def _renamed(names: Sequence[str], words: Sequence[str]) -> dict[str, str]:
    """Old name -> new name, of the renamed classes; names may contain `=`."""
    new_name: dict[str, str] = {}
    for word in words:
        pieces = word.split("=")
        cuts = [("=".join(pieces[:cut]), "=".join(pieces[cut:])) for cut in range(1, len(pieces))]
        found = next(((old, new) for old, new in cuts if old in names and new), None)
        if found is None:
            hint = nearest(pieces[0], names) if cuts else ": expected OLD=NEW"
            raise UserError(f"--rename {shorten(word)}: there is no such class{hint}")
        new_name[found[0]] = found[1]
    for old, new in new_name.items():
        if new in names and new not in new_name:
            raise UserError(f"--rename {old}={new}: '{new}' is a class, too: use --merge")
    return new_name
