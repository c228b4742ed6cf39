"""Any folder of pictures, with everything that real folders contain."""

import os
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import robustlab.data as data
from robustlab.core.errors import InvalidInput
from robustlab.core.files import sha256
from robustlab.data import image_folder


def picture(path, colour=(255, 0, 0), size=(12, 8), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)


def load(path, **options):
    return data.load("image_folder", path=path, size=4, **options)


def colour(batch, image_id):
    """Mean colour of one image."""
    return batch.images[batch.ids.index(image_id)].mean((1, 2))


def near(colour, expected, tolerance=0.02):
    return torch.allclose(colour, torch.tensor(expected).float(), atol=tolerance)


def test_every_format_is_found_recursively_and_sorted(tmp_path):
    for name in ("b.PNG", "a.jpg", "x/y/c.jpeg", "d.bmp", "e.webp", "f.gif", "g.tif", "x/h.tiff"):
        picture(tmp_path / name)
    picture(tmp_path / ".hidden.png")
    picture(tmp_path / ".cache" / "z.png")
    (tmp_path / "notes.txt").write_text("no picture")
    folder = load(tmp_path)
    found = ("a.jpg", "b.PNG", "d.bmp", "e.webp", "f.gif", "g.tif", "x/h.tiff", "x/y/c.jpeg")
    assert folder.ids == found
    batch = folder.batch()
    assert batch.images.shape == (8, 3, 4, 4)
    assert batch.labels.tolist() == [-1] * 8
    assert all(near(colour(batch, i), (1, 0, 0), 0.05) for i in folder.ids)


def test_the_centre_is_kept_and_the_shape_is_not_squeezed(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (16, 48, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "wide.png")
    Image.fromarray(noise.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    usual = Image.fromarray(noise).resize((12, 4), Image.Resampling.BICUBIC).crop((4, 0, 8, 4))
    expected = torch.from_numpy(np.array(usual)).permute(2, 0, 1) / 255
    tall, wide = load(tmp_path).batch().images
    assert torch.allclose(wide, expected, atol=1.5 / 255)
    assert torch.allclose(tall, expected.transpose(1, 2), atol=1.5 / 255)


def test_a_very_long_picture_needs_no_huge_memory(tmp_path):
    picture(tmp_path / "strip.png", size=(1, 60000))
    batch = data.load("image_folder", path=tmp_path, size=224).batch()
    assert batch.images.shape == (1, 3, 224, 224)


def test_broken_pictures_are_skipped_with_the_reason(tmp_path):
    picture(tmp_path / "good.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("this is no picture")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    for name in ("cut.jpg", "cut.png"):
        noise.save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    folder = load(tmp_path)
    assert folder.ids == ("good.png",)
    assert len(folder.batch()) == 1
    reasons = dict(folder.skipped)
    assert list(reasons) == ["cut.jpg", "cut.png", "empty.png", "text.jpg"]
    assert "truncated" in reasons["cut.jpg"]
    assert reasons["cut.png"]
    assert reasons["empty.png"] == "the file is empty"
    assert reasons["text.jpg"] == "not a picture in any known format"


def test_a_folder_of_broken_pictures_is_an_error_that_lists_them(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.jpg").write_text("no")
    with pytest.raises(InvalidInput, match=r"broken: a\.png: the file is empty; b\.jpg: not a"):
        load(tmp_path)


def test_without_the_check_a_broken_picture_is_an_error_when_read(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no")
    folder = load(tmp_path, check=False)
    assert folder.ids == ("a.png", "b.png")
    assert len(folder.batch(1)) == 1
    with pytest.raises(InvalidInput, match=r"b\.png: not a picture.*check=True"):
        folder.batch()


def test_empty_missing_and_plain_file_are_told_apart(tmp_path):
    with pytest.raises(InvalidInput, match=r"no picture in .*looked for \.bmp"):
        load(tmp_path)
    with pytest.raises(InvalidInput, match="nowhere does not exist"):
        load(tmp_path / "nowhere")
    picture(tmp_path / "a.png")
    with pytest.raises(InvalidInput, match="is not a folder"):
        load(tmp_path / "a.png")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    picture(tmp_path / "good.png")

    def chunk(kind, body):
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    folder = load(tmp_path)
    assert folder.ids == ("good.png",)
    assert "decompression bomb" in dict(folder.skipped)["bomb.png"]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_just_over_pillows_warning_is_refused_too(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    picture(tmp_path / "good.png", size=(10, 10))
    picture(tmp_path / "large.png", size=(12, 12))
    folder = load(tmp_path)
    assert folder.ids == ("good.png",)
    assert "decompression bomb" in dict(folder.skipped)["large.png"]


def test_exif_orientation_is_honoured(tmp_path):
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:8] = 255  # the upper half is white
    for orientation, stored in {1: upright, 3: upright[::-1, ::-1], 6: np.rot90(upright)}.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(stored)).save(
            tmp_path / f"{orientation}.png", exif=exif
        )
    for image in load(tmp_path).batch().images:
        assert image[:, :2].min() > 0.9
        assert image[:, 2:].max() < 0.1


def test_transparency_is_laid_on_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGBA", (8, 8), (255, 0, 0, 128)).save(tmp_path / "half.png")
    Image.new("LA", (8, 8), (0, 0)).save(tmp_path / "gray.png")
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 0, 255, 0, 255, 0])
    palette.save(tmp_path / "palette.png", transparency=0)
    palette.save(tmp_path / "solid.gif")
    batch = load(tmp_path).batch()
    assert near(colour(batch, "clear.png"), (1, 1, 1))
    assert near(colour(batch, "half.png"), (1, 0.5, 0.5))
    assert near(colour(batch, "gray.png"), (1, 1, 1))
    assert near(colour(batch, "palette.png"), (1, 1, 1))
    assert near(colour(batch, "solid.gif"), (0, 0, 1))


def test_colour_modes(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    Image.new("L", (8, 8), 128).save(tmp_path / "gray.png")
    Image.new("1", (8, 8), 1).save(tmp_path / "bits.png")
    batch = load(tmp_path).batch()
    red = colour(batch, "cmyk.jpg")
    assert red[0] > 0.9
    assert red[1:].max() < 0.15
    assert near(colour(batch, "gray.png"), (0.5, 0.5, 0.5))
    assert near(colour(batch, "bits.png"), (1, 1, 1))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    half = np.full((8, 8), 32768, np.uint16)
    Image.fromarray(half).save(tmp_path / "half.png")
    Image.fromarray(half).save(tmp_path / "half.tif")
    batch = load(tmp_path).batch()
    assert near(colour(batch, "half.png"), (0.5, 0.5, 0.5))
    assert near(colour(batch, "half.tif"), (0.5, 0.5, 0.5))


def test_floating_point_pictures_need_the_unit_range(tmp_path):
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "unit.tif")
    Image.fromarray(np.full((8, 8), 500, np.float32)).save(tmp_path / "far.tif")
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "nan.tif")
    folder = load(tmp_path)
    assert folder.ids == ("unit.tif",)
    assert near(colour(folder.batch(), "unit.tif"), (0.5, 0.5, 0.5))
    assert "leave [0, 1]" in dict(folder.skipped)["far.tif"]
    assert "leave [0, 1]" in dict(folder.skipped)["nan.tif"]


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), c) for c in ((0, 255, 0), (255, 0, 0))]
    frames[0].save(tmp_path / "move.gif", save_all=True, append_images=frames[1:])
    assert near(colour(load(tmp_path).batch(), "move.gif"), (0, 1, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system of bytes")
def test_a_name_that_cannot_be_written_is_skipped(tmp_path):
    picture(tmp_path / "good.png")
    picture(tmp_path / "bad.png")
    (tmp_path / "bad.png").rename(tmp_path / os.fsdecode(b"\xff.png"))
    for check in (True, False):
        folder = load(tmp_path, check=check)
        assert folder.ids == ("good.png",)
        assert "UTF-8" in folder.skipped[0][1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_broken_links_are_skipped(tmp_path):
    picture(tmp_path / "good.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    folder = load(tmp_path)
    assert folder.ids == ("good.png",)
    assert dict(folder.skipped) == dict.fromkeys(("link.png", "pipe.png"), "not a regular file")


def test_a_revision_follows_the_pictures_it_is_asked_for(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    chosen = (["b.png"], ["a.png", "b.png"], ["a.png", "b.png", "c.png"], ["a.png", "c.png"])
    before = [load(tmp_path).revision(ids) for ids in chosen]
    picture(tmp_path / "b.png", colour=(254, 0, 0))
    after = [load(tmp_path).revision(ids) for ids in chosen]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, False, True]
    assert all(before)


def test_a_revision_is_of_contents_and_of_nothing_else(tmp_path):
    for folder in ("one", "two"):
        picture(tmp_path / folder / "a.png")
        picture(tmp_path / folder / "b.png", colour=(0, 0, 255))
    os.utime(tmp_path / "two" / "a.png", (1, 1))
    one, two = load(tmp_path / "one"), load(tmp_path / "two", check=False, limit=1)
    assert one.revision(["a.png"]) == two.revision(["a.png"])
    assert one.revision(["a.png", "b.png"]) != one.revision(["b.png", "a.png"])


def test_a_revision_follows_the_labels(tmp_path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    revisions = []
    for labels in ("a.png,0\nb.png,0\n", "a.png,0\nb.png,1\n"):
        (tmp_path / "labels.csv").write_text(f"file,label\n{labels}")
        folder = load(tmp_path)
        revisions.append([folder.revision([name]) for name in folder.ids])
    (a, b), (same, other) = revisions
    assert a == same
    assert b != other


def test_files_are_hashed_once_and_only_when_asked_for(tmp_path, monkeypatch):
    hashed = []

    def watched(path):
        hashed.append(path.name)
        return sha256(path)

    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    monkeypatch.setattr(image_folder, "sha256", watched)
    folder = load(tmp_path)
    folder.batch(1)
    assert hashed == []
    for ids in (["b.png"], ["a.png", "b.png"]):
        folder.revision(ids)
    assert hashed == ["b.png", "a.png"]


def test_a_picture_that_has_gone_has_no_revision(tmp_path):
    picture(tmp_path / "a.png")
    folder = load(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(InvalidInput, match=r"path: .*a\.png: .*No such file"):
        folder.revision(["a.png"])


def test_limit_takes_the_first_good_ones(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    for name in ("b.png", "c.png", "d.png"):
        picture(tmp_path / name)
    folder = load(tmp_path, limit=2)
    assert folder.ids == ("b.png", "c.png")
    assert [name for name, _ in folder.skipped] == ["a.png"]
