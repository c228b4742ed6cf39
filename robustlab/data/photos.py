"""Real photographs that come with packages the project installs anyway.

An ImageNet classifier recognises every one of them. ``label`` is the ImageNet class that
the picture truly shows; where ImageNet has none (it knows mopeds but no motorcycles, daisies
but no dahlias) the label is -1, whatever a classifier calls it.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from torch import Tensor

from robustlab.core.batch import UNLABELLED
from robustlab.core.errors import InvalidInput, nearest
from robustlab.core.regions import Box
from robustlab.data.dataset import Dataset, at_least_one
from robustlab.data.package_files import package_file
from robustlab.data.picture import read_picture, to_square, to_tensor


@dataclass(frozen=True)
class Photo:
    """One photograph.

    Attributes:
        id: stable name.
        package, file: where it is installed.
        origin: who took it and under which terms.
        name: what it shows, for humans.
        label: its ImageNet class, -1 where ImageNet has none for it.
        crop: the square that is used, ``(left, top, right, bottom)`` in source pixels.
        box: around the object by eye, as shares of the crop. Where the object fills the
            picture (grace_hopper) it says nothing about where a map points.
    """

    id: str
    package: str
    file: str
    origin: str
    name: str
    label: int
    crop: Box
    box: Box


PHOTOS: Final = (
    Photo(
        id="camera",
        package="skimage",
        file="data/camera.png",
        origin="Lav Varshney, CC0",
        name="camera on a tripod",
        label=872,  # tripod
        crop=(0, 0, 512, 512),
        box=(0.44, 0.26, 0.80, 1.00),
    ),
    Photo(
        id="coffee",
        package="skimage",
        file="data/coffee.png",
        origin="Rachel Michetti, CC0, courtesy of Pikolo Espresso Bar",
        name="cup of espresso",
        label=967,  # espresso
        crop=(100, 0, 500, 400),
        box=(0.18, 0.04, 0.79, 0.78),
    ),
    Photo(
        id="chelsea",
        package="skimage",
        file="data/chelsea.png",
        origin="Stefan van der Walt, CC0",
        name="tabby cat",
        label=281,  # tabby
        crop=(130, 0, 430, 300),
        box=(0.00, 0.00, 0.91, 0.94),
    ),
    Photo(
        id="rocket",
        package="skimage",
        file="data/rocket.jpg",
        origin="SpaceX, public domain",
        name="rocket on its launch pad",
        label=UNLABELLED,  # ImageNet's nearest, missile, is a weapon
        crop=(120, 0, 547, 427),
        box=(0.42, 0.30, 0.52, 0.97),
    ),
    Photo(
        id="motorcycle",
        package="skimage",
        file="data/motorcycle_left.png",
        origin="Nera Nesic and others, Middlebury 2014 stereo benchmark",
        name="motorcycle",
        label=UNLABELLED,  # ImageNet has mopeds and motor scooters only
        crop=(120, 0, 620, 500),
        box=(0.00, 0.15, 1.00, 0.88),
    ),
    Photo(
        id="china",
        package="sklearn",
        file="datasets/images/china.jpg",
        origin="danielbuechele on Flickr, CC BY 2.0",
        name="tower of the Summer Palace in Beijing",
        label=698,  # palace
        crop=(60, 27, 460, 427),
        box=(0.01, 0.00, 0.77, 0.91),
    ),
    Photo(
        id="flower",
        package="sklearn",
        file="datasets/images/flower.jpg",
        origin="vultilion on Flickr, CC BY 2.0",
        name="dahlia",
        label=UNLABELLED,  # ImageNet's only similar flower is the daisy
        crop=(106, 0, 533, 427),
        box=(0.14, 0.19, 0.80, 0.85),
    ),
    Photo(
        id="grace_hopper",
        package="matplotlib",
        file="mpl-data/sample_data/grace_hopper.jpg",
        origin="James S. Davis for the United States Navy, public domain",
        name="naval officer in uniform",
        label=652,  # military uniform
        crop=(0, 20, 512, 532),
        box=(0.00, 0.00, 1.00, 1.00),
    ),
    Photo(
        id="helmet",
        package="skimage",
        file="data/astronaut.png",
        origin="NASA, public domain; a corner of the portrait of Eileen Collins",
        name="helmet of a space suit",
        label=UNLABELLED,  # ImageNet has football and crash helmets only
        crop=(232, 232, 512, 512),
        box=(0.20, 0.39, 1.00, 1.00),
    ),
)
BOX: Final = MappingProxyType({photo.id: photo.box for photo in PHOTOS})


@dataclass(frozen=True)
class Photos:
    """Photographs that come with scikit-image, scikit-learn and matplotlib, as RGB squares.

    Attributes:
        size: side of the images in pixels.
        leave_out: ids of photographs to leave out, such as the portrait whose object fills
            the frame, where a question of place has no answer.
    """

    size: int = 224
    leave_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        at_least_one("size", self.size)
        known = [photo.id for photo in PHOTOS]
        for name in self.leave_out:
            if name not in known:
                raise InvalidInput("leave_out", f"no photograph {name!r}", nearest(name, known))

    def load(self) -> Dataset:
        """List the photographs; ``boxes`` says where the object of each one is.

        Raises:
            MissingDependency, InvalidInput: a package or its file is not there; said when
                the picture is read.
        """
        chosen = [photo for photo in PHOTOS if photo.id not in self.leave_out]
        return Dataset(
            name="photos",
            ids=tuple(photo.id for photo in chosen),
            labels=tuple(photo.label for photo in chosen),
            names=tuple(photo.name for photo in chosen),
            read=lambda i: self._read(chosen[i]),
            boxes=BOX,
        )

    def _read(self, photo: Photo) -> Tensor:
        picture = read_picture(package_file(photo.package, photo.file))
        return to_tensor(to_square(picture, self.size, photo.crop))
