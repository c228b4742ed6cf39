"""The pictures that manipulated maps show."""

import pytest

from attacks.model.pictures import draw
from robustlab.core.errors import InvalidInput
from tests.attacks.exact import PICTURES


def test_pictures_are_what_their_names_say():
    drawn = {
        "cross": ["..#..", "..#..", "#####", "..#..", "..#.."],
        "frame": ["#####", "#...#", "#...#", "#...#", "#####"],
        "disc": [".....", ".###.", ".###.", ".###.", "....."],
        "checkerboard": [".#.#.", "#.#.#", ".#.#.", "#.#.#", ".#.#."],
    }
    for name in PICTURES:
        rows = ["".join(".#"[int(v)] for v in row) for row in draw(name, 5, 5)]
        assert rows == drawn[name], name
    assert draw("cross", 4, 6).tolist()[0] == [0, 0, 1, 1, 0, 0]
    assert draw("checkerboard", 8, 12)[0].tolist() == [0, 0, 1, 1] * 3


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("size", [(3, 3), (4, 4), (7, 7), (6, 9), (14, 14), (28, 28), (224, 224)])
def test_no_picture_is_a_plain_area(picture, size):
    drawn = draw(picture, *size)
    assert drawn.shape == size
    assert sorted(drawn.unique().tolist()) == [0, 1]


def test_a_grid_that_cannot_show_the_picture_is_refused():
    with pytest.raises(InvalidInput, match=r"picture: a cross on 2x2 places is a plain area"):
        draw("cross", 2, 2)
    with pytest.raises(InvalidInput, match=r"unknown picture 'dics'; did you mean 'disc'"):
        draw("dics", 9, 9)
