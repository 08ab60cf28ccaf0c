"""Runs a program on a terminal and prints what the terminal showed.

    terminal.py PROGRAM [ARGUMENT...] <lines

Each line is typed at a prompt of its own: a colon and a space, once the program hides what is typed, or a
question that ends in [y/N]. A program that never asks is ended after a minute. The exit code is the program's.
"""

import os
import pty
import select
import signal
import sys
import termios

lines = sys.stdin.buffer.readlines()
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])

signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
signal.alarm(60)
shown = b""
answered = 0
while True:
    echo = termios.tcgetattr(terminal)[3] & termios.ECHO
    asked = shown[answered:]
    if lines and (not echo and asked.endswith(b": ") or asked.endswith(b"[y/N] ")):
        os.write(terminal, lines.pop(0))
        answered = len(shown)
    if select.select([terminal], [], [], 0.01)[0]:
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # Linux says so when the program has closed its end.
            break

_, status = os.waitpid(child, 0)
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(status) % 256)
