"""Names beside a plot: apart, in the order of their marks, and no further away than need be."""

import random
from itertools import pairwise

from robustlab.reporting.named_plot import spread


def test_labels_do_not_overlap_and_keep_their_order() -> None:
    shuffled = random.Random(0)
    for _ in range(200):
        count = shuffled.randint(1, 6)
        rooms = [shuffled.choice((0.2, 0.4)) for _ in range(count)]
        wanted = [shuffled.uniform(0, 2.6) for _ in range(count)]
        places = spread(wanted, rooms, 2.6)
        order = sorted(range(count), key=lambda i: wanted[i])
        assert sorted(range(count), key=lambda i: places[i]) == order
        edges = [(places[i] - rooms[i] / 2, places[i] + rooms[i] / 2) for i in order]
        assert edges[0][0] >= -1e-9
        assert edges[-1][1] <= 2.6 + 1e-9
        assert all(b[0] >= a[1] - 1e-9 for a, b in pairwise(edges))


def test_labels_with_room_stay_where_they_are() -> None:
    assert spread([0.5, 2.0, 1.2], [0.2, 0.2, 0.2], 2.6) == [0.5, 2.0, 1.2]
