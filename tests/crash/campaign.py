"""Crash after crash in one place: start, judge what is there, load, crash; and again on the same directory."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Union

import body
import server
from body import ABSENT, Bodies
from clients import CONNECTION_ERRORS, Client, Connection, Finding, Record
from history import Life, contradiction
from server import Broken, Installation, Process, Survey
from volume import Folder, Volume

Place = Union[Folder, Volume]

# How many clients there are in one life. With one alone, no sync of another hides that its own is missing.
_CLIENTS = (1, 4, 12)
_OWN = 3
_SHARED = 6
# One crash in so many strikes while the server starts.
_DURING_START = 8
# Seconds: a start takes about 0.03.
_LONGEST_START = 0.05
_LONGEST_LOAD = 0.8
_MOST_ACKNOWLEDGED = 150
# How long a server runs on after its disk is gone, at most: what it still acknowledges is a lie.
_LONGEST_AFTERLIFE = 0.03
# Of a backup's operations, so many are shown with a finding.
_SHOWN = 30


class Campaign:
    """Crashes of one kind, one after the other, up to the first with a finding."""

    def __init__(self, place: Place, installation: Installation, seed: str) -> None:
        self._place = place
        self._installation = installation
        self._choice = random.Random(f"{seed}/{place.name}")
        self._seed = seed
        self._bodies = Bodies(seed, installation.largest)
        # Moments and versions count through all lives: a version is uploaded once.
        self._moments = itertools.count(1)
        self._versions = itertools.count(1)
        count = max(_CLIENTS) * _OWN + _SHARED
        ids = [hashlib.sha256(f"{seed}/{number}".encode()).hexdigest() for number in range(count)]
        self._shared = ids[:_SHARED]
        self._ids = ids
        self._state = dict.fromkeys(ids, ABSENT)
        self._trashed: dict[str, set[int]] = {}
        self._kept: dict[str, set[int]] = {}
        self._lengths: dict[int, int] = {}
        self._record = self._new_record(lambda: None)
        self.counts: Counter[str] = Counter()
        self.findings: list[Finding] = []

    def run(self, crashes: int, progress: Callable[[Campaign], None]) -> None:
        """Crashes the server so often, or until there is a finding."""
        try:
            while not self.findings and self.counts["crashes"] < crashes:
                self._crash_once()
                progress(self)
            if not self.findings:
                process = self._start()
                process.kill()
        except Broken as broken:
            self._find("start", "", str(broken))

    def _crash_once(self) -> None:
        if self._choice.randrange(_DURING_START) == 0:
            self._crash_during_start()
        else:
            process = self._start()
            if self.findings:
                process.kill()
            else:
                self._load_until_crash(process)
        self.counts["crashes"] += 1
        self._place.recover()
        self._look()

    def _crash_during_start(self) -> None:
        process = self._installation.spawn(self._place.data)
        time.sleep(self._choice.uniform(0, _LONGEST_START))
        if not process.is_alive():
            raise Broken(f"the server ended while it started; it said: {process.output()}")
        self._place.strike()
        process.kill()
        self.counts["during start"] += 1

    def _start(self) -> Process:
        """Starts the server, and judges the life before by what it serves now."""
        left = server.survey(self._place.data).leftovers
        process = self._installation.spawn(self._place.data)
        port = process.port()
        self.counts["starts"] += 1
        found = server.survey(self._place.data)
        # Others are of this life: the server writes down what it did at its start.
        for leftover in sorted(set(left) & set(found.leftovers)):
            self._find("leftover", "", f"{leftover} is still there after a start")
        self._judge(self._served(port, found))
        return process

    def _served(self, port: int, on_disk: Survey) -> dict[str, int]:
        """What a phone gets under each id, which has to be what lies on the disk."""
        connection = Connection(self._installation, port)
        served = {}
        for backup in self._ids:
            try:
                status, content = connection.ask("GET", backup)
                if status not in (200, 404):
                    raise Broken(f"a GET after the start was answered {status}")
                served[backup] = body.read(backup, content) if status == 200 else ABSENT
                if served[backup] != on_disk.backups.get(backup, ABSENT):
                    self._find("torn", backup, f"version {served[backup]} is served, and another lies on the disk")
            except body.Torn as torn:
                self._find("torn", backup, f"a GET after the start was given {torn}")
            except CONNECTION_ERRORS as error:
                raise Broken(f"a GET after the start failed: {error!r}") from error
        connection.close()
        for backup in sorted(set(on_disk.backups) - set(self._ids)):
            self._find("torn", backup, "a backup lies there that no client uploaded")
        return served

    def _judge(self, served: dict[str, int]) -> None:
        """Holds what is there against all that was answered."""
        self._lengths.update(self._record.lengths)
        for backup, after in served.items():
            life = Life(
                self._state[backup],
                tuple(self._record.operations.get(backup, ())),
                after,
                frozenset(self._trashed.get(backup, ())),
                self._place.power_cut,
                frozenset(self._kept.get(backup, ())),
                self._lengths,
            )
            why = contradiction(life)
            if why is not None:
                self._find("history", backup, why)
        self._state.update(served)
        self._trashed = {}
        self._kept = {}
        self._record = self._new_record(lambda: None)

    def _load_until_crash(self, process: Process) -> None:
        port = process.port()
        struck = threading.Event()
        once = threading.Lock()
        # Either at any moment, or at the one in which an answer has just come.
        after_answers = self._choice.randint(1, _MOST_ACKNOWLEDGED) if self._choice.random() < 0.5 else None
        acknowledged = itertools.count(1)

        def strike() -> None:
            if once.acquire(blocking=False):
                record.strike()
                self.counts["read-only"] += self._place.strike()
                if not self._place.power_cut:
                    process.kill()
                struck.set()

        def acknowledge() -> None:
            if next(acknowledged) == after_answers:
                strike()

        record = self._record = self._new_record(acknowledge)
        clients = [threading.Thread(target=client.run, daemon=True) for client in self._clients(port, record)]
        clients.append(threading.Thread(target=self._ask_for_readiness, args=(process, record), daemon=True))
        for client in clients:
            client.start()
        if after_answers is None:
            time.sleep(self._choice.uniform(0, _LONGEST_LOAD))
        elif not struck.wait(server.FAIL_SAFE):
            record.find("answer", "", f"{after_answers} answers did not come in {server.FAIL_SAFE:.0f} seconds")
        if record.struck is None and not process.is_alive():
            record.find("answer", "", f"the server ended by itself; it said: {process.output()}")
        strike()
        struck.wait()
        if self._place.power_cut:
            time.sleep(self._choice.uniform(0, _LONGEST_AFTERLIFE))
        process.kill()
        for client in clients:
            client.join(server.FAIL_SAFE)
        self.counts.update(record.counts)
        for finding in record.findings:
            self._find(finding.kind, finding.backup, finding.text)

    @staticmethod
    def _ask_for_readiness(process: Process, record: Record) -> None:
        """Trial files come and go beside the load, so that crashes strike during trials as well."""
        while record.struck is None:
            try:
                status = process.readiness()
            except (OSError, http.client.HTTPException) as error:
                if record.struck is None:
                    record.find("answer", "", f"/readyz failed: {error!r}")
                return
            if status != 200 and record.struck is None:
                record.find("answer", "", f"/readyz was answered {status}")
            record.count("trials")

    def _clients(self, port: int, record: Record) -> Iterable[Client]:
        for number in range(self._choice.choice(_CLIENTS)):
            first = _SHARED + number * _OWN
            yield Client(
                random.Random(self._choice.random()),
                Connection(self._installation, port),
                record,
                self._bodies,
                self._versions,
                self._ids[first : first + _OWN],
                self._shared,
            )

    def _look(self) -> None:
        """Reads what the crash left, while nothing runs."""
        found = server.survey(self._place.data)
        for folder, backup, text in found.torn:
            self._find("torn", backup, f"in {folder}/ lies, after the crash, a file with {text}")
        for backup, versions in found.trash.items():
            self._trashed.setdefault(backup, set()).update(versions)
        for backup, versions in found.kept.items():
            self._kept.setdefault(backup, set()).update(versions)
            self.counts["kept"] += len(versions)
        server.empty_trash(self._place.data)

    def _new_record(self, acknowledged: Callable[[], None]) -> Record:
        return Record(self._moments, acknowledged)

    def _find(self, kind: str, backup: str, text: str) -> None:
        """Writes a finding down, with what is needed to understand it."""
        lines = [text, f"seed {self._seed}, {self._place.name}, after {self.counts['crashes']} crashes"]
        if backup:
            lines.append(f"id {backup}, before this life version {self._state.get(backup, ABSENT)} (0 is none)")
            operations = sorted(self._record.operations.get(backup, ()), key=lambda operation: operation.began)
            lines += [f"    {operation}" for operation in operations[-_SHOWN:]]
            lines += [f"    [{self._record.struck}] the crash began"] if self._record.struck else []
        self.findings.append(Finding(kind, backup, "\n".join(lines)))
