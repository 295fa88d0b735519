"""What must hold for the package as a whole."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fulcrum.datasets
from fulcrum.datasets.formats import FORMATS, detect_format, load_dataset

from .formats.test_boxes import COCO, put_coco, put_fiftyone
from .formats.test_huggingface import save, table
from .formats.test_manifest import write
from .formats.test_webdataset import write_shard
from .images import encoded, picture, put_picture


def manifest(folder):
    put_picture(folder / "a.png")
    write(folder / "manifest.csv", [{"id": "a", "source": "a.png"}])


EXAMPLES = {
    "manifest": manifest,
    "huggingface": lambda folder: save(folder, [table(0)]),
    "webdataset": lambda folder: write_shard(folder / "0.tar", {"0.png": encoded(picture(0))}),
    "coco": lambda folder: put_coco(folder, content=COCO),
    "fiftyone": lambda folder: put_fiftyone(folder, {"a": 1}),
    "file_names": lambda folder: put_picture(folder / "label=dog_text=cat.png"),
    "image_folder": lambda folder: put_picture(folder / "dog" / "1.png"),
    "unlabelled": lambda folder: put_picture(folder / "1.png"),
}


def test_every_format_has_an_example_here():
    assert set(EXAMPLES) == set(FORMATS)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_recognised_loaded_and_read(tmp_path, format):
    EXAMPLES[format](tmp_path)
    assert detect_format(tmp_path) == format
    dataset = load_dataset(str(tmp_path), name="mine")
    assert dataset.name == "mine"
    assert len(dataset.digest) == 64
    assert all(dataset.read_bytes(s) for s in dataset.samples)


def test_data_sets_and_indexes_need_neither_torch_nor_the_science():
    code = (
        "import sys, fulcrum.datasets.formats, fulcrum.datasets.hygiene, fulcrum.datasets.index; "
        "foreign = ('torch', 'scipy', 'datasets', 'fulcrum.science'); "
        "bad = [m for m in sys.modules if m.startswith(foreign)]; "
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_of_the_package_unpickles():
    for file in Path(fulcrum.datasets.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not {"pickle", "shelve", "marshal"} & set(names), file.name
            if isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", file.name
