"""Places for a data directory, and how the power is cut there.

A folder knows only SIGKILL: what was written is still in the kernel's memory. A volume is a file system of its own in a
file, and `FS_IOC_GOINGDOWN` without flushing the log takes from it, at once, all that is not on its device, as a power
cut does. What the device was given it has, though: a drive that lies about its cache is not played here.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

from server import Broken

_GOING_DOWN = 0x8004587D
_WITHOUT_LOG_FLUSH = struct.pack("I", 2)
_IMAGE_BYTES = 384 << 20
# Nothing reaches the device just because time passes, and no rename writes out a file that was not synced: what is there
# after a cut is there because the server asked for it.
_OPTIONS = {"ext4": "loop,noatime,commit=300,noauto_da_alloc", "xfs": "loop,noatime"}
FILE_SYSTEMS = tuple(_OPTIONS)


class Folder:
    """An ordinary folder, where the server dies by SIGKILL."""

    power_cut = False

    def __init__(self, parent: Path) -> None:
        self.name = "SIGKILL"
        self.data = parent / "data"

    def strike(self) -> bool:
        """Does nothing: the end of the process is all that happens."""
        return False

    def recover(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing; the folder goes with its parent."""


class Volume:
    """A mounted file system whose power can be cut."""

    power_cut = True

    def __init__(self, parent: Path, file_system: str) -> None:
        self.name = f"power cut, {file_system}"
        self._file_system = file_system
        self._image = parent / f"{file_system}.image"
        self._root = parent / file_system
        self._mounted = False
        self._strikes = 0
        self.data = self._root / "data"
        self._root.mkdir()
        with open(self._image, "wb") as image:
            image.truncate(_IMAGE_BYTES)
        _call(f"mkfs.{file_system}", "-q", str(self._image))
        try:
            self._mount()
        except BaseException:
            self._unmount()
            raise

    def strike(self) -> bool:
        """Cuts the power. The server may go on running, on a disk that is gone.

        One time in four the file system becomes read-only for a moment before, as after an error of its disk: says
        whether it did.
        """
        self._strikes += 1
        became_read_only = False
        if self._strikes % 4 == 0:
            # It fails while a file is open for writing; then the power is cut all the same.
            for _ in range(20):
                remount = ["mount", "-o", "remount,ro", str(self._root)]
                if subprocess.run(remount, stderr=subprocess.DEVNULL).returncode == 0:
                    became_read_only = True
                    time.sleep(0.02)
                    break
        descriptor = os.open(self._root, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _GOING_DOWN, _WITHOUT_LOG_FLUSH)
        finally:
            os.close(descriptor)
        return became_read_only

    def recover(self) -> None:
        """Mounts again, as after the power has come back: the journal is replayed. No process may be left."""
        self._unmount()
        self._mount()

    def close(self) -> None:
        """Unmounts and removes the image."""
        self._unmount()
        self._image.unlink(missing_ok=True)

    def _mount(self) -> None:
        # Noted first: an interruption may come when the file system is mounted already.
        self._mounted = True
        _call("mount", "-t", self._file_system, "-o", _OPTIONS[self._file_system], str(self._image), str(self._root))

    def _unmount(self) -> None:
        if not self._mounted:
            return
        # Another program that scans this machine may hold it for a moment.
        for _ in range(50):
            if not self._is_listed():
                break
            if subprocess.run(["umount", str(self._root)], stderr=subprocess.DEVNULL).returncode == 0:
                break
            time.sleep(0.1)
        else:
            _call("umount", "--lazy", str(self._root))
        self._mounted = False

    def _is_listed(self) -> bool:
        # A look at the directory itself fails where the disk is gone.
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8")
        return any(line.split(" ")[1] == str(self._root) for line in mounts.splitlines())


def obstacle(file_system: str, scratch: Path) -> str | None:
    """Why the power of this file system cannot be cut here; None if it can."""
    if shutil.which(f"mkfs.{file_system}") is None:
        return f"there is no mkfs.{file_system}"
    if os.geteuid() != 0:
        return "only root can mount"
    volume = None
    try:
        volume = Volume(scratch, file_system)
        volume.strike()
        volume.recover()
    except (OSError, Broken) as error:
        return str(error)
    finally:
        if volume is not None:
            volume.close()
        shutil.rmtree(scratch / file_system, ignore_errors=True)
        (scratch / f"{file_system}.image").unlink(missing_ok=True)
    return None


def _call(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Broken(f"{command[0]} failed: {done.stderr.strip()}")
