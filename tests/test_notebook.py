"""The notebook runs from its first cell to its last, with small parameters."""

from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
NOTEBOOK = PROJECT / "examples" / "yolov4_tiny_attention.ipynb"
SMALL = """
SIZE, TRAIN_IMAGES, VAL_IMAGES, EPOCHS, COMPARED_EPOCHS, SEEDS = 64, 16, 8, 1, 1, ["0"]
"""
WAIT = 300  # seconds for a cell


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel")
    pytest.importorskip("onnxscript", reason="needs requirements-export.txt")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = (cell for cell in notebook.cells if "tags" in cell.metadata)
    parameters.source += SMALL
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=WAIT, resources=resources).execute()
    images = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(images) == 3
    assert (tmp_path / "runs" / "shapes" / "best.onnx").is_file()


def test_the_notebook_is_committed_without_outputs():
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
