"""What a server may show after all that it said: the rule by which a crash is judged.

The rule, for each backup id alone: there is one order of its operations, in which none that was answered before another
was begun comes after it, such that every answer is right at its place, and what is there after the crash is what the
order ends with. An operation without an answer may be in it anywhere after its beginning, or not at all. This is
linearizability; it needs no exception for several clients that write under one id at once.

A power cut may undo what no client was told is done: after it, what is there is the state somewhere in such an order, with
every acknowledged upload and removal before that place.

The trash takes part: what a removal took away is in it, and nothing else is. A version that an upload of less than half
its length replaced is kept in it too, apart from those, unless three of this id are kept already; other versions may be.
It is kept before it loses its name, so that a crash may leave it in both places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from body import ABSENT


# So many replaced versions of one backup are kept.
_MOST_KEPT = 3


class Kind(Enum):
    """What was asked for."""

    PUT = "PUT"
    DELETE = "DELETE"
    GET = "GET"


@dataclass(frozen=True)
class Operation:
    """One request, with its place in time and its answer."""

    kind: Kind
    # Of a PUT, what it uploads; of a GET, what it was given.
    version: int
    # Moments are numbers that only grow: before the request is sent, and after its answer has come.
    began: int
    # None where no answer came: it may be carried out until the crash.
    ended: int | None
    # Whether there was a backup, as the answer tells: 204 and 201, 204 and 404, 200 and 404. None without an answer.
    existed: bool | None

    @property
    def must_last(self) -> bool:
        """Whether its answer promises that what it changed is on the disk."""
        changes = self.kind is Kind.PUT or (self.kind is Kind.DELETE and self.existed is True)
        return changes and self.ended is not None

    def __str__(self) -> str:
        answers = {
            Kind.PUT: {True: "204", False: "201", None: "no answer"},
            Kind.DELETE: {True: "204", False: "404", None: "no answer"},
            Kind.GET: {True: f"200, version {self.version}", False: "404", None: "no answer"},
        }
        what = f"{self.kind.value} of version {self.version}" if self.kind is Kind.PUT else self.kind.value
        end = "…" if self.ended is None else f"{self.ended}"
        return f"[{self.began} to {end}] {what}: {answers[self.kind][self.existed]}"


@dataclass(frozen=True)
class Life:
    """All that is known of one backup id from one start of the server to the next."""

    before: int
    operations: tuple[Operation, ...]
    after: int
    # The versions that came into the trash.
    trashed: frozenset[int]
    # Whether the crash was a power cut.
    power_cut: bool
    # The replaced versions that were kept in the trash.
    kept: frozenset[int] = frozenset()
    # How long each version is, in bytes; those of the same length are missing.
    lengths: Mapping[int, int] = field(default_factory=dict)

    def must_keep(self, old: int, new: int) -> bool:
        """Whether the version `old` has to be in the trash when `new` has replaced it."""
        is_much_smaller = 2 * self.lengths.get(new, 0) < self.lengths.get(old, 0)
        return is_much_smaller and len(self.kept) < _MOST_KEPT


@dataclass(frozen=True)
class _Place:
    """A place in some order: what the state is there, and which operations without an answer yet are behind it."""

    state: int
    # Whether this is later than what the power cut left.
    undone: bool
    carried_out: frozenset[Operation]


def contradiction(life: Life) -> str | None:
    """Why no order explains this life; None if one does."""
    written = {operation.version for operation in life.operations if operation.kind is Kind.PUT}
    if life.after not in written | {life.before, ABSENT}:
        return f"version {life.after} is there, which no client uploaded whole in this life"
    strange = (life.trashed | life.kept) - written - {life.before}
    if strange:
        return f"version {min(strange)} came into the trash, which no client uploaded whole in this life"
    if life.after in life.trashed:
        return f"version {life.after} is in the trash, and also there"

    if len(life.kept) > _MOST_KEPT:
        return f"{len(life.kept)} replaced versions are kept, which is more than {_MOST_KEPT}"

    places = {_Place(life.before, False, frozenset())}
    pending: set[Operation] = set()
    for moment, operation in sorted(_moments(life.operations), key=lambda item: item[0]):
        if moment == operation.began:
            pending.add(operation)
            continue
        reached = _reachable(places, pending, life)
        pending.remove(operation)
        places = {
            _Place(place.state, place.undone, place.carried_out - {operation})
            for place in reached
            if operation in place.carried_out
        }
        if not places:
            return f"no order of the operations explains the answer to {operation}"
    if not any(_is_end(place, pending, life) for place in _reachable(places, pending, life)):
        found = "no backup" if life.after == ABSENT else f"version {life.after}"
        in_trash = f", and in the trash {sorted(life.trashed)}" if life.trashed else ""
        return f"after the crash there is {found}{in_trash}, which no order of the operations explains"
    return None


def _moments(operations: Iterable[Operation]) -> Iterable[tuple[int, Operation]]:
    for operation in operations:
        yield operation.began, operation
        if operation.ended is not None:
            yield operation.ended, operation


def _reachable(places: set[_Place], pending: set[Operation], life: Life) -> set[_Place]:
    """All places that carrying out pending operations leads to, in every order."""
    found = set(places)
    rest = list(places)
    while rest:
        place = rest.pop()
        following = [_carried_out(place, operation, life) for operation in pending - place.carried_out]
        if life.power_cut and not place.undone and place.state == life.after:
            following.append(_Place(place.state, True, place.carried_out))
        for next_place in following:
            if next_place is not None and next_place not in found:
                found.add(next_place)
                rest.append(next_place)
    return found


def _carried_out(place: _Place, operation: Operation, life: Life) -> _Place | None:
    """Where `operation` leads to from this place; None if that contradicts its answer, or what is on the disk."""
    state = place.state
    if place.undone and operation.must_last:
        return None
    if operation.existed is not None and operation.existed != (state != ABSENT):
        return None
    carried_out = place.carried_out | {operation}
    if operation.kind is Kind.GET:
        return _Place(state, place.undone, carried_out) if state == operation.version else None
    # What a removal takes away goes into the trash, unless it was undone; what an upload replaces does not.
    removed = operation.kind is Kind.DELETE and not place.undone
    if state != ABSENT and (state in life.trashed) != removed:
        return None
    if operation.kind is Kind.DELETE:
        return _Place(ABSENT, place.undone, carried_out)
    if place.undone and operation.version in life.trashed:
        return None
    if not place.undone and life.must_keep(state, operation.version) and state not in life.kept:
        return None
    return _Place(operation.version, place.undone, carried_out)


def _is_end(place: _Place, pending: set[Operation], life: Life) -> bool:
    """Whether a life may end here: with what is on the disk, and all that is in the trash accounted for."""
    missing = {operation.version for operation in pending - place.carried_out if operation.kind is Kind.PUT}
    return (place.undone or place.state == life.after) and not missing & life.trashed
