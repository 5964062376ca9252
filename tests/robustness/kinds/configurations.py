"""Configurations, and the file of `compare.py --settings`."""

from pathlib import Path

from tests.robustness.kinds.kind import Kind, to_yaml
from utils.compare.planning.settings import make_settings, read_settings
from utils.core.config import CONFIG_DIR, dump_config, load_config
from utils.core.schema import Config
from utils.core.yaml_text import parse_yaml


def _config(folder: Path) -> Kind:
    files = [path.read_bytes() for path in sorted(CONFIG_DIR.glob("*.yaml"))]
    files.append(dump_config(Config()).encode())
    values = [parse_yaml(file.decode(), "seed") for file in files]
    return Kind(folder / "a.yaml", load_config, tuple(files), True, tuple(values), to_yaml, 0.4)


def _settings(folder: Path) -> Kind:
    """The file of `compare.py --settings`."""
    settings = {
        "none": {"phi": "none"},
        "two": {"phi": {"feat1": "se", "feat2": {"name": "cbam", "reduction": 8}}},
        "adamw": {"train": {"optimizer": "adamw"}, "train.lr": 1e-3, "seed": 100},
    }

    def load(path: Path) -> None:
        settings = make_settings(Config(), read_settings(str(path)))
        assert all(setting.folder for setting in settings)

    return Kind(folder / "a.yaml", load, (to_yaml(settings),), True, (settings,), to_yaml, 0.4)


KINDS = {
    "config": _config,
    "settings": _settings,
}
