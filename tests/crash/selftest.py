"""Shows that the crash test can fail: histories that must and must not be explained, and what sabotage leads to."""

from __future__ import annotations

from dataclasses import dataclass

from body import ABSENT
from history import Kind, Life, Operation, contradiction


@dataclass(frozen=True)
class Sabotage:
    """A promise that `sabotage.c` breaks."""

    name: str
    # Whether it takes a power cut to see it; SIGKILL leaves the kernel's memory as it is.
    power_cut: bool
    # What kinds of finding it may lead to. Another one would mean that it was caught by accident.
    kinds: frozenset[str]


SABOTAGES = (
    # A replaced version that was kept in the trash is the same file, and changes with it.
    Sabotage("in-place", False, frozenset({"torn", "history"})),
    Sabotage("lost-rename", False, frozenset({"history"})),
    Sabotage("no-sweep", False, frozenset({"leftover"})),
    Sabotage("no-fsync", True, frozenset({"torn"})),
    Sabotage("no-directory-fsync", True, frozenset({"history"})),
)


def _put(version: int, began: int, ended: int | None, existed: bool | None = True) -> Operation:
    return Operation(Kind.PUT, version, began, ended, None if ended is None else existed)


def _delete(began: int, ended: int | None, existed: bool | None = True) -> Operation:
    return Operation(Kind.DELETE, ABSENT, began, ended, None if ended is None else existed)


def _get(version: int, began: int, ended: int) -> Operation:
    return Operation(Kind.GET, version, began, ended, version != ABSENT)


@dataclass(frozen=True)
class _Case:
    name: str
    explained: bool
    operations: tuple[Operation, ...]
    after: int
    before: int = 1
    trashed: frozenset[int] = frozenset()
    power_cut: bool = False
    kept: frozenset[int] = frozenset()
    lengths: tuple[int, ...] = ()


_SECOND = frozenset({2})
_CASES = (
    _Case("nothing happened", True, (), 1),
    _Case("nothing happened, and it is gone", False, (), ABSENT),
    _Case("the last of two uploads", True, (_put(2, 1, 2), _put(3, 3, 4)), 3),
    _Case("the first of two uploads", False, (_put(2, 1, 2), _put(3, 3, 4)), 2),
    _Case("the first of two uploads at once", True, (_put(2, 1, 4), _put(3, 2, 3)), 2),
    _Case("what was there before an upload", False, (_put(2, 1, 2),), 1),
    _Case("what was there before an upload without an answer", True, (_put(2, 1, None),), 1),
    _Case("an upload without an answer", True, (_put(2, 1, None),), 2),
    _Case("an upload without an answer, from before one with", True, (_put(2, 1, None), _put(3, 2, 3)), 2),
    _Case("a version of no client", False, (_put(2, 1, 2),), 9),
    _Case("a removal", True, (_put(2, 1, 2), _delete(3, 4)), ABSENT, trashed=_SECOND),
    _Case("a removal that came back", False, (_put(2, 1, 2), _delete(3, 4)), 2),
    _Case("a removal that is not in the trash", False, (_put(2, 1, 2), _delete(3, 4)), ABSENT),
    _Case("another version in the trash", False, (_put(2, 1, 2), _delete(3, 4)), ABSENT, trashed=frozenset({1})),
    _Case("a replaced version in the trash", False, (_put(2, 1, 2), _put(3, 3, 4)), 3, trashed=_SECOND),
    _Case("a much shorter upload keeps", True, (_put(2, 1, 2),), 2, kept=frozenset({1}), lengths=(0, 100, 49)),
    _Case("a much shorter upload does not keep", False, (_put(2, 1, 2),), 2, lengths=(0, 100, 49)),
    _Case("half of it need not be kept", True, (_put(2, 1, 2),), 2, lengths=(0, 100, 50)),
    _Case("a much shorter upload did not come", True, (_put(2, 1, None),), 1, lengths=(0, 100, 49)),
    _Case("it came as far as the trash", True, (_put(2, 1, None),), 1, kept=frozenset({1}), lengths=(0, 100, 49)),
    _Case("it came without the trash", False, (_put(2, 1, None),), 2, lengths=(0, 100, 49)),
    _Case("the trash has what nobody uploaded", False, (_put(2, 1, 2),), 2, kept=frozenset({9})),
    _Case("another version is kept", False, (_put(2, 1, 2),), 2, kept=_SECOND, lengths=(0, 100, 49)),
    _Case(
        "the fourth need not be kept",
        True,
        (_put(2, 1, 2), _put(3, 3, 4), _put(4, 5, 6), _put(5, 7, 8)),
        5,
        kept=frozenset({1, 2, 3}),
        lengths=(0, 900, 400, 150, 50, 9),
    ),
    _Case("a removal without an answer", True, (_put(2, 1, 2), _delete(3, None)), ABSENT, trashed=_SECOND),
    _Case("a removal without an answer that did not come", True, (_put(2, 1, 2), _delete(3, None)), 2),
    _Case("a version in the trash and there", False, (_put(2, 1, 2), _delete(3, None)), 2, trashed=_SECOND),
    _Case("created where something was", False, (_put(2, 1, 2, existed=False),), 2),
    _Case("nothing to remove where something was", False, (_delete(1, 2, existed=False),), 1),
    _Case("a reader goes back", False, (_put(2, 1, 6), _get(2, 2, 3), _get(1, 4, 5)), 2),
    _Case("readers before and after", True, (_put(2, 1, 6), _get(1, 2, 3), _get(2, 4, 5)), 2),
    _Case("seen, never answered, and gone", False, (_put(2, 1, None), _get(2, 2, 3)), 1),
    _Case("the same at a power cut", True, (_put(2, 1, None), _get(2, 2, 3)), 1, power_cut=True),
    _Case("answered and lost at a power cut", False, (_put(2, 1, 2),), 1, power_cut=True),
    _Case("removed and back at a power cut", False, (_delete(1, 2),), 1, power_cut=True),
    _Case("a removal undone by a power cut", True, (_delete(1, None), _get(ABSENT, 2, 3)), 1, power_cut=True),
    _Case(
        "an order that two readers saw otherwise",
        False,
        (_put(2, 1, 4), _put(3, 2, 3), _get(2, 5, 6), _get(3, 7, 8)),
        3,
    ),
)


def wrong_verdicts() -> list[str]:
    """The names of the histories that `history.py` judges wrongly."""
    wrong = []
    for case in _CASES:
        lengths = dict(enumerate(case.lengths))
        life = Life(
            case.before, case.operations, case.after, case.trashed, case.power_cut, case.kept, lengths
        )
        if (contradiction(life) is None) != case.explained:
            wrong.append(case.name)
    return wrong
