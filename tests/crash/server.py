"""The server under test: its installation in a folder of its own, its process, and what lies on its disk."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import ssl
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

import body

# For what takes milliseconds: so long that only a server that hangs does not make it.
FAIL_SAFE = 60.0
_LISTENING = re.compile(rb"listening .*listen=\[127\.0\.0\.1:(\d+).*admin=127\.0\.0\.1:(\d+) ")
# Of what the server wrote, this much of the end is kept for a report.
_KEPT_OUTPUT = 4096
# So many requests in an hour are not refused: the most that can be set.
_LARGEST_BUDGET = "1000000"


class Broken(Exception):
    """The server did not do what a test needs before it can judge anything; the text says what."""


class Installation:
    """What `init` makes, once for a run; the data directory may lie elsewhere."""

    def __init__(self, program: Path, folder: Path, extra_environment: dict[str, str]) -> None:
        self._program = program
        self._folder = folder
        self._extra_environment = extra_environment
        command = [str(program), "init", "--yes", "--listen", "127.0.0.1:0"]
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FAIL_SAFE)
        secret = re.search(r"^\s*Password   (\S+)$", made.stdout, re.MULTILINE)
        if made.returncode != 0 or secret is None:
            raise Broken(f"init failed: {made.stderr.strip()}")
        self.authorization = "Basic " + base64.b64encode(f"phones:{secret.group(1)}".encode()).decode()
        self.tls = ssl.create_default_context(cafile=str(folder / "certs" / "development-ca.pem"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.largest: int = config.get("maxBackupBytes", 524288)
        self._last: Process | None = None

    def close(self) -> None:
        """Ends the server that may still run."""
        if self._last is not None:
            self._last.kill()

    def spawn(self, data: Path) -> Process:
        """Begins to start the server on this data directory."""
        environment = dict(os.environ)
        environment["SAFE_ADMIN__LISTEN"] = "127.0.0.1:0"
        environment["SAFE_STORAGE__FILES__DIRECTORY"] = str(data)
        # The disk is small and fills up, and a campaign uploads and misses more than any office.
        environment["SAFE_QUOTAS__MIN_FREE_BYTES"] = "0"
        environment["SAFE_LIMITS__UNKNOWN_BACKUPS_PER_ADDRESS_AND_HOUR"] = _LARGEST_BUDGET
        environment["SAFE_LIMITS__UNKNOWN_BACKUPS_PER_ACCOUNT_AND_HOUR"] = _LARGEST_BUDGET
        environment["SAFE_LIMITS__NEW_BACKUPS_PER_ADDRESS_AND_HOUR"] = _LARGEST_BUDGET
        environment.update(self._extra_environment)
        command = [str(self._program), "serve"]
        self._last = Process(command, self._folder, environment)
        return self._last


class Process:
    """A server that runs, or has just been started."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._child = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self._output = b""
        self._port: int | None = None
        self._admin_port: int | None = None
        self._heard = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def port(self) -> int:
        """Waits until the server listens, and says where."""
        self._heard.wait(FAIL_SAFE)
        if self._port is None:
            self.kill()
            raise Broken(f"the server did not start; it said: {self.output()}")
        return self._port

    def readiness(self) -> int:
        """The status of /readyz, for which the server writes, renames and removes a trial file."""
        assert self._admin_port is not None
        connection = http.client.HTTPConnection("127.0.0.1", self._admin_port, timeout=FAIL_SAFE)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status
        finally:
            connection.close()

    def is_alive(self) -> bool:
        """Whether nothing has ended it yet."""
        return self._child.poll() is None

    def kill(self) -> None:
        """SIGKILL, and waits until the process is gone with all its files and locks."""
        self._child.kill()
        self._child.wait()
        self._listener.join(FAIL_SAFE)

    def output(self) -> str:
        """The end of what the server wrote."""
        return self._output.decode(errors="replace")

    def _listen(self) -> None:
        """Takes all that the server writes, so that it never waits for a reader."""
        assert self._child.stderr is not None
        with self._child.stderr as stream:
            while chunk := os.read(stream.fileno(), 1 << 16):
                self._output += chunk
                listening = None if self._port else _LISTENING.search(self._output)
                if listening:
                    self._admin_port = int(listening.group(2))
                    self._port = int(listening.group(1))
                    self._heard.set()
                if self._port:
                    self._output = self._output[-_KEPT_OUTPUT:]
        self._heard.set()


@dataclass
class Survey:
    """What lies in the data directory."""

    backups: dict[str, int] = field(default_factory=dict)
    # What was removed, and what an upload that looked wrong replaced.
    trash: dict[str, set[int]] = field(default_factory=dict)
    kept: dict[str, set[int]] = field(default_factory=dict)
    # Files that are not one whole version of what their name says: where, id, in what way.
    torn: list[tuple[str, str, str]] = field(default_factory=list)
    # Files that a crash left and a start has to sweep: all in tmp/, and elsewhere those under no backup's name.
    leftovers: list[str] = field(default_factory=list)


_NAME = re.compile(r"([0-9a-f]{64})(?:(\.\d+)(\.replaced)?)?")


def survey(data: Path) -> Survey:
    """Reads everything; no client may be writing."""
    found = Survey()
    for folder in ("tmp", "backups", "trash"):
        if not (data / folder).is_dir():
            continue
        for path in sorted((data / folder).iterdir()):
            name = _NAME.fullmatch(path.name)
            is_trash = folder == "trash"
            if folder == "tmp" or name is None or is_trash != bool(name.group(2)):
                found.leftovers.append(f"{folder}/{path.name}")
                continue
            backup = name.group(1)
            try:
                version = body.read(backup, path.read_bytes())
            except body.Torn as torn:
                found.torn.append((folder, backup, str(torn)))
                continue
            versions = (found.kept if name.group(3) else found.trash).setdefault(backup, set())
            if not is_trash:
                found.backups[backup] = version
            elif version in versions:
                found.torn.append((folder, backup, f"version {version} a second time"))
            else:
                versions.add(version)
    return found


def empty_trash(data: Path) -> None:
    """Makes room, after what lies in the trash was read. No client may be writing."""
    trash = data / "trash"
    if not trash.is_dir():
        return
    for path in trash.iterdir():
        path.unlink()
    # Or else a power cut brings them back.
    descriptor = os.open(trash, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
