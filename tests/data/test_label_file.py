"""Labels of a folder: found, read, and refused with file and line."""

import pytest
from PIL import Image

import robustlab.data as data
from robustlab.core.errors import InvalidInput


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "sub/b.png", "c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    return tmp_path


def load(folder, **options):
    return data.load("image_folder", path=folder, size=4, **options)


def test_labels_csv_in_the_folder_is_used(folder):
    (folder / "labels.csv").write_text("file,label\na.png,7\n./sub/b.png, 0\n")
    batch = load(folder).batch()
    assert dict(zip(batch.ids, batch.labels.tolist(), strict=True)) == {
        "a.png": 7,
        "c.png": -1,
        "sub/b.png": 0,
    }


def test_another_file_by_path_or_by_its_name_in_the_folder(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("labels") / "mine.csv"
    elsewhere.write_text("\ufefflabel,file,remark\n3,a.png,from a spreadsheet\n", encoding="utf-8")
    assert load(folder, labels=elsewhere).labels == (3, -1, -1)
    (folder / "other.csv").write_text("file,label\nc.png,4\n")
    assert load(folder, labels="other.csv").labels == (-1, 4, -1)


def test_a_label_of_a_broken_picture_is_no_error(folder):
    (folder / "broken.png").write_bytes(b"")
    (folder / "labels.csv").write_text("file,label\nbroken.png,1\na.png,2\n")
    assert load(folder).labels == (2, -1, -1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.png,7\n", r"labels\.csv: no header 'file,label'"),
        ("", "no header"),
        ("file,label\na.png,7\nz.png,1\n", r"labels\.csv line 3: no picture 'z\.png'"),
        ("file,label\na.png,seven\n", r"labels\.csv line 2: 'seven' is not a whole number"),
        ("file,label\na.png,1.5\n", "line 2: '1.5' is not a whole number"),
        ("file,label\na.png\n", "line 2: None is not a whole number"),
        ("file,label\na.png,-2\n", "line 2: label -2; use -1"),
        ("file,label\na.png,1\na.png,2\n", r"line 3: 'a\.png' is labelled twice"),
    ],
)
def test_wrong_files_are_refused_with_the_line(folder, text, words):
    (folder / "labels.csv").write_text(text)
    with pytest.raises(InvalidInput, match=words):
        load(folder)


def test_a_file_that_is_missing_or_not_text_is_refused(folder):
    with pytest.raises(InvalidInput, match=r"nowhere\.csv cannot be read"):
        load(folder, labels="nowhere.csv")
    (folder / "labels.csv").write_bytes(b"file,label\n\xff\xfe,1\n")
    with pytest.raises(InvalidInput, match=r"labels\.csv cannot be read"):
        load(folder)
