"""Phones that write, read and remove at once, each over a TLS connection of its own, until the server is gone."""

from __future__ import annotations

import http.client
import itertools
import random
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import body
from body import ABSENT, Bodies
from history import Kind, Operation
from server import FAIL_SAFE, Installation

# What http.client raises when the other side is gone, at whatever place.
CONNECTION_ERRORS = (OSError, http.client.HTTPException)
# An upload without an answer may be carried out at any later time, which makes histories costly to judge.
_MOST_ABANDONED = 2


@dataclass(frozen=True)
class Finding:
    """Something that must not be."""

    kind: str
    backup: str
    text: str


class Record:
    """What happened in one life of the server, written by all clients."""

    def __init__(self, moments: itertools.count[int], acknowledged: Callable[[], None]) -> None:
        self.operations: dict[str, list[Operation]] = {}
        # How long each version is.
        self.lengths: dict[int, int] = {}
        self.findings: list[Finding] = []
        self.counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._moments = moments
        self._acknowledged = acknowledged
        self._struck: int | None = None

    def moment(self) -> int:
        """A number larger than all before it."""
        return next(self._moments)

    def strike(self) -> None:
        """Notes that the crash begins now: from here on, a failure is none of the server's."""
        self._struck = self.moment()

    @property
    def struck(self) -> int | None:
        """The moment at which the crash began; None before it."""
        return self._struck

    def add(self, backup: str, operation: Operation) -> None:
        """Notes an operation that was answered, or that was not."""
        self.count("unanswered" if operation.ended is None else operation.kind.value)
        # Once the disk is gone, the memory of it is nothing to go by; a promise stays one.
        late = self._struck is not None and operation.ended is not None and operation.ended > self._struck
        if operation.must_last or operation.ended is None or not late:
            self.operations.setdefault(backup, []).append(operation)
        if operation.must_last:
            self.count("acknowledged")
            self._acknowledged()

    def count(self, what: str) -> None:
        """Adds one, also while others do so."""
        with self._counting:
            self.counts[what] += 1

    def find(self, kind: str, backup: str, text: str) -> None:
        """Notes a finding."""
        self.findings.append(Finding(kind, backup, text))


class Connection:
    """Requests of a phone, on one connection for as long as it lasts."""

    def __init__(self, installation: Installation, port: int) -> None:
        self._headers = {"Authorization": installation.authorization, "User-Agent": "Threema"}
        self._http = http.client.HTTPSConnection("localhost", port, timeout=FAIL_SAFE, context=installation.tls)

    def ask(self, method: str, backup: str, upload: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._http.request(method, _path(backup), body=upload, headers=self._headers)
        answer = self._http.getresponse()
        return answer.status, answer.read()

    def leave_during(self, backup: str, upload: bytes, sent: int) -> None:
        """Begins an upload, and is gone after this many of its bytes."""
        self._http.putrequest("PUT", _path(backup))
        for name, value in {**self._headers, "Content-Length": str(len(upload))}.items():
            self._http.putheader(name, value)
        self._http.endheaders(upload[:sent] or None)
        self.close()

    def close(self) -> None:
        """Ends the connection; the next request opens another."""
        connected: socket.socket | None = self._http.sock
        if isinstance(connected, ssl.SSLSocket):
            try:
                # Without a farewell, as a phone that loses its network.
                connected.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._http.close()


def _path(backup: str) -> str:
    return f"/backups/{backup}"


class Client:
    """Does one thing after the other to backups of its own and to those that all share."""

    def __init__(
        self,
        choice: random.Random,
        connection: Connection,
        record: Record,
        bodies: Bodies,
        versions: itertools.count[int],
        own: list[str],
        shared: list[str],
    ) -> None:
        self._choice = choice
        self._connection = connection
        self._record = record
        self._bodies = bodies
        self._versions = versions
        self._own = own
        self._shared = shared
        self._abandoned = 0

    def run(self) -> None:
        """Until the server is gone: the first request that is not answered as it should be is the last."""
        try:
            while self._act():
                pass
        except Exception as error:  # noqa: BLE001 - a client that dies unseen would make the test blind
            self._record.find("test", "", f"a client of the test failed: {error!r}")
        self._connection.close()

    def _act(self) -> bool:
        backup = self._choice.choice(self._own if self._choice.random() < 0.6 else self._shared)
        dice = self._choice.random()
        if dice < 0.30:
            return self._get(backup)
        if dice < 0.50:
            return self._delete(backup)
        version = next(self._versions)
        upload = self._bodies.make(backup, version, self._bodies.length(self._choice))
        self._record.lengths[version] = len(upload)
        if dice < 0.52:
            return self._cut(backup, upload)
        if dice < 0.53 and self._abandoned < _MOST_ABANDONED:
            return self._abandon(backup, version, upload)
        return self._put(backup, version, upload)

    def _put(self, backup: str, version: int, upload: bytes) -> bool:
        began = self._record.moment()
        status, _ = self._ask("PUT", backup, upload)
        return self._note(backup, Kind.PUT, version, began, {201: False, 204: True}.get(status), status)

    def _delete(self, backup: str) -> bool:
        began = self._record.moment()
        status, _ = self._ask("DELETE", backup)
        return self._note(backup, Kind.DELETE, ABSENT, began, {204: True, 404: False}.get(status), status)

    def _get(self, backup: str) -> bool:
        began = self._record.moment()
        status, found = self._ask("GET", backup)
        version = ABSENT
        if status == 200:
            try:
                version = body.read(backup, found)
            except body.Torn as torn:
                self._record.find("torn", backup, f"a GET at {began} was given {torn}")
                return True
        return self._note(backup, Kind.GET, version, began, {200: True, 404: False}.get(status), status)

    def _cut(self, backup: str, upload: bytes) -> bool:
        """Sends less than a whole upload: its version is in no history, and must never be seen."""
        return self._leave(backup, upload, self._choice.randrange(len(upload)))

    def _abandon(self, backup: str, version: int, upload: bytes) -> bool:
        """Sends a whole upload, and does not wait for the answer."""
        self._abandoned += 1
        began = self._record.moment()
        self._record.add(backup, Operation(Kind.PUT, version, began, None, None))
        return self._leave(backup, upload, len(upload))

    def _leave(self, backup: str, upload: bytes, sent: int) -> bool:
        self._record.count("cut")
        try:
            self._connection.leave_during(backup, upload, sent)
        except CONNECTION_ERRORS as error:
            return self._lost(backup, "PUT", repr(error))
        return self._record.struck is None

    def _ask(self, method: str, backup: str, upload: bytes | None = None) -> tuple[int, bytes]:
        """Status 0 where the connection broke before there was a whole answer."""
        try:
            return self._connection.ask(method, backup, upload)
        except CONNECTION_ERRORS as error:
            self._lost(backup, method, repr(error))
            return 0, b""

    def _note(
        self, backup: str, kind: Kind, version: int, began: int, existed: bool | None, status: int
    ) -> bool:
        """Notes how an operation ended; says whether to go on."""
        ended = None if existed is None else self._record.moment()
        if existed is not None or kind is not Kind.GET:
            self._record.add(backup, Operation(kind, version, began, ended, existed))
        if existed is None and status != 0:
            self._lost(backup, kind.value, f"answered {status}")
        # After a power cut the server still answers, for as long as it needs no disk.
        return existed is not None and (self._record.struck is None or kind is Kind.PUT)

    def _lost(self, backup: str, method: str, text: str) -> bool:
        """A failure before the crash is a finding."""
        if self._record.struck is None:
            self._record.find("answer", backup, f"{method} failed while nothing was wrong: {text}")
        return False
