"""A stamp is where its box says, shaped as drawn here by hand, and touches nothing else."""

from dataclasses import dataclass
from itertools import combinations

import pytest
import torch

from robustlab.core.errors import InvalidInput
from robustlab.core.tables import build
from robustlab.data.dataset import Dataset
from robustlab.data.stamp import Stamp
from robustlab.lab.measuring import region_masks

SHAPES = ("square", "disc", "triangle", "cross")
DRAWN = {
    ("square", 1): "#",
    ("square", 3): "### ### ###",
    ("disc", 4): ".##. #### #### .##.",
    ("disc", 5): ".###. ##### ##### ##### .###.",
    ("disc", 7): "..###.. .#####. ####### ####### ####### .#####. ..###..",
    ("triangle", 4): ".##. .##. #### ####",
    ("triangle", 5): "..#.. .###. .###. ##### #####",
    ("cross", 4): "#..# .##. .##. #..#",
    ("cross", 5): "#...# .#.#. ..#.. .#.#. #...#",
    ("cross", 8): "##....## ###..### .######. ..####.. ..####.. .######. ###..### ##....##",
}
# options, and the row and column of the upper left pixel on a picture of 9 rows, 11 columns
PLACES = [
    ({"side": 4}, (0, 0)),
    ({"side": 4, "corner": "top_right"}, (0, 7)),
    ({"side": 4, "corner": "bottom_left"}, (5, 0)),
    ({"side": 4, "corner": "bottom_right"}, (5, 7)),
    ({"side": 4, "corner": "top_right", "margin": 2}, (2, 5)),
    ({"side": 5, "corner": "bottom_left", "margin": 1}, (3, 1)),
    ({"side": 5, "corner": "bottom_right", "margin": 4}, (0, 2)),
    ({"side": 4, "at": (3, 6)}, (3, 6)),
    ({"side": 4, "at": (5, 7), "corner": "top_left"}, (5, 7)),
    ({"side": 9, "at": (0, 2)}, (0, 2)),
]
HEIGHT, WIDTH = 9, 11


@pytest.mark.parametrize(("shape", "side"), DRAWN)
def test_shapes_are_as_drawn(shape, side):
    mask = Stamp(shape=shape, side=side).mask(side + 1, side + 2)
    rows = ["".join(".#"[int(pixel)] for pixel in row[:side]) for row in mask[:side]]
    assert " ".join(rows) == DRAWN[shape, side]
    assert not mask[side:].any()
    assert not mask[:, side:].any()


@pytest.mark.parametrize("side", range(4, 20))
def test_four_shapes_differ_and_touch_every_side_of_their_frame(side):
    masks = {s: Stamp(shape=s, side=side).mask(side + 1, side)[:side] for s in SHAPES}
    for one, other in combinations(SHAPES, 2):
        assert not torch.equal(masks[one], masks[other]), (one, other)
    for shape, mask in masks.items():
        for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
            assert edge.any(), shape
        assert torch.equal(mask, mask.flip(1)), shape


@pytest.mark.parametrize(("options", "place"), PLACES)
@pytest.mark.parametrize("shape", SHAPES)
def test_pasting_replaces_the_drawn_pixels_one_by_one(shape, options, place):
    images = torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    stamp = Stamp(shape=shape, value=(0.0, 0.25, 1.0), **options)
    pasted = stamp.paste(images)
    drawn = Stamp(shape=shape, side=stamp.side).mask(40, 40)  # its shape is proved above
    changed = 0
    for i in range(2):
        for c in range(3):
            for row in range(HEIGHT):
                for column in range(WIDTH):
                    down, right = row - place[0], column - place[1]
                    framed = 0 <= down < stamp.side and 0 <= right < stamp.side
                    inside = framed and bool(drawn[down, right])
                    expected = stamp.value[c] if inside else float(before[i, c, row, column])
                    assert float(pasted[i, c, row, column]) == expected
                    changed += inside
    assert changed == 6 * int(drawn.sum())
    assert torch.equal(images, before)


@pytest.mark.parametrize(("options", "place"), PLACES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_box_is_the_tight_one_around_the_mask(shape, options, place):
    stamp = Stamp(shape=shape, **options)
    mask = stamp.mask(HEIGHT, WIDTH)
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    x0, y0, x1, y1 = stamp.box(HEIGHT, WIDTH)
    assert (y0 * HEIGHT, x0 * WIDTH) == pytest.approx(place)
    assert (int(rows[0]), int(columns[0])) == place
    assert (y1 * HEIGHT, x1 * WIDTH) == pytest.approx((int(rows[-1]) + 1, int(columns[-1]) + 1))


@pytest.mark.parametrize(("options", "place"), PLACES)
@pytest.mark.parametrize("shape", SHAPES)
def test_region_metrics_see_the_frame_of_the_box(shape, options, place):
    stamp = Stamp(shape=shape, **options)
    boxed = Dataset("x", ("a",), (0,), ("",), torch.zeros, boxes={"a": stamp.box(HEIGHT, WIDTH)})
    region = region_masks(boxed, ["a"], torch.zeros(1, HEIGHT, WIDTH))[0]
    square = Stamp(side=stamp.side, at=place).mask(HEIGHT, WIDTH)
    assert torch.equal(region, square)
    mask = stamp.mask(HEIGHT, WIDTH)
    assert torch.equal(mask & region, mask)
    assert torch.equal(mask, region) is (shape == "square")


def test_each_image_can_get_a_grey_of_its_own():
    images = torch.full((3, 2, 6, 6), 0.5, dtype=torch.float64)
    greys = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    stamp = Stamp(side=2, corner="bottom_left", margin=1, value=(0.9, 0.8))
    pasted = stamp.paste(images, greys)
    assert pasted.dtype == torch.float64
    for i in range(3):
        assert (pasted[i, :, 3:5, 1:3] == greys[i]).all()
    rest = ~stamp.mask(6, 6)
    assert (pasted[:, :, rest] == 0.5).all()


def test_the_gradient_flows_around_the_stamp_and_not_under_it():
    images = torch.rand(2, 1, 6, 6, requires_grad=True)
    stamp = Stamp(shape="cross", side=5, at=(1, 0))
    (slope,) = torch.autograd.grad(stamp.paste(images).sum(), images)
    assert torch.equal(slope, (~stamp.mask(6, 6)).float().expand(2, 1, 6, 6))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"side": 0}, "side: 0 pixels are no square; a square has at least 1"),
        ({"side": 3, "shape": "disc"}, "side: 3 pixels are no disc; 4 show a disc"),
        ({"margin": -1}, "margin: must be at least 0, got -1"),
        ({"at": (0, -1)}, r"at: \(0, -1\) is not within the image; \(0, 0\) is its first pixel"),
        ({"at": (0, 0), "margin": 1}, "margin: 1 .*leave out margin or at"),
        ({"value": 1.5}, r"value: 1\.5 leaves \[0, 1\]; 0 is black, 1 is white"),
        ({"value": (0.5, -0.1)}, r"value: .*leaves \[0, 1\]"),
        ({"value": ()}, r"value: \(\) leaves"),
        ({"value": float("nan")}, "value: must be finite"),
    ],
)
def test_a_stamp_that_cannot_be_is_refused(options, words):
    with pytest.raises(InvalidInput, match=words):
        Stamp(**options)


@pytest.mark.parametrize(
    ("options", "words", "fits"),
    [
        ({"side": 8}, "side: .* covers all of a 8x8 picture; at most 7", {"side": 7}),
        ({"side": 9}, "side: .* covers all of a 8x8 picture; at most 7", {"side": 7}),
        ({"side": 4, "margin": 5}, "margin: 5 .* leave a 8x8 picture; at most 4", {"margin": 4}),
        ({"at": (5, 0)}, r"at: .* leaves a 8x8 picture; at most \(4, 4\)", {"at": (4, 0)}),
        ({"at": (0, 5)}, r"at: .* leaves a 8x8 picture; at most \(4, 4\)", {"at": (4, 4)}),
    ],
)
def test_a_stamp_that_does_not_fit_says_what_would(options, words, fits):
    stamp, images = Stamp(**options), torch.zeros(1, 1, 8, 8)
    for use in (lambda: stamp.paste(images), lambda: stamp.mask(8, 8), lambda: stamp.box(8, 8)):
        with pytest.raises(InvalidInput, match=words):
            use()
    whole = Stamp(**{**options, **fits})
    assert whole.paste(images).sum() == whole.side**2


def test_a_stamp_may_span_one_side_of_a_picture_but_not_leave_it():
    assert Stamp(side=6).mask(6, 9).sum() == 36
    with pytest.raises(InvalidInput, match=r"side: .* leaves a 9x6 picture; at most 6"):
        Stamp(side=7).mask(6, 9)
    with pytest.raises(InvalidInput, match=r"side: .* covers all of a 1x1 picture; take larger"):
        Stamp(side=1).mask(1, 1)


@pytest.mark.parametrize(
    ("images", "options", "values", "words"),
    [
        (torch.zeros(1, 8, 8), {}, None, r"images: expected a float tensor \[B,C,H,W\]"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), {}, None, "images: .*uint8"),
        (torch.zeros(1, 2, 8, 8), {"value": (0.0,) * 3}, None, "value: 3 given .* give 1 or 2"),
        (torch.zeros(2, 1, 8, 8), {}, torch.zeros(3), r"values: expected shape \(2,\)"),
        (torch.zeros(2, 1, 8, 8), {}, torch.tensor([0.0, 1.1]), r"values: 0 to 1\.1 leaves"),
        (torch.zeros(2, 1, 8, 8), {}, torch.tensor([0.0, torch.nan]), "values: .*leaves"),
    ],
)
def test_images_and_values_that_do_not_fit_are_refused(images, options, values, words):
    with pytest.raises(InvalidInput, match=words):
        Stamp(**options).paste(images, values)


@dataclass(frozen=True, kw_only=True)
class Stamped:
    stamp: Stamp


def test_a_stamp_inside_other_options_is_built_from_plain_values_and_refuses_typos():
    made = build({"x": Stamped}, "attack", "x", {"stamp": {"shape": "disc", "at": [1, 2]}})
    assert made.stamp == Stamp(shape="disc", at=(1, 2))
    with pytest.raises(InvalidInput, match=r"x\.stamp: .*'sied'"):
        build({"x": Stamped}, "attack", "x", {"stamp": {"sied": 5}})
