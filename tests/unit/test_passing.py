"""Names that come and go: the longest unused are taken back, those in use are left alone."""

from zeventfs.fuse.passing import _MOST, PassingNames
from zeventfs.nodes.base import Node


class Passing(Node):
    used = False

    @property
    def in_use(self) -> bool:
        return self.used


def test_the_names_asked_for_longest_ago_are_taken_back() -> None:
    taken: list[tuple[int, bytes]] = []
    names = PassingNames(lambda parent, name: taken.append((parent, name)))
    for number in range(_MOST):
        names.told(5, b"%d" % number, Passing(str(number)))
    assert taken == []
    names.told(5, b"0", Passing("0"))
    assert taken == []
    names.told(5, b"more", Passing("more"))
    assert taken[0] == (5, b"1")
    assert (5, b"0") not in taken
    assert len(names) <= _MOST


def test_names_in_use_stay_and_others_go_for_them() -> None:
    taken: list[bytes] = []
    names = PassingNames(lambda _, name: taken.append(name))
    nodes = [Passing(str(number)) for number in range(_MOST + 50)]
    for number, node in enumerate(nodes):
        node.used = number % 2 == 0
        names.told(5, b"%d" % number, node)
    assert taken
    assert all(int(name) % 2 for name in taken)
    for number in range(1000):
        names.told(5, b"x%d" % number, Passing("x"))
    assert {b"%d" % number for number in range(1, _MOST + 50, 2)} <= set(taken)
    assert len(names) <= _MOST + 1
