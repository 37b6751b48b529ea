"""Classes that are called like classes of `awkward_types`."""

import dataclasses
import enum


@dataclasses.dataclass
class Address:
    country: str
    code: int = 0


class Color(enum.Enum):
    CYAN = (0, 255, 255)


class Outer:
    @dataclasses.dataclass
    class Address:
        floor: int
