"""`python pretended.py SCRIPT FD`: a process that does, without torch, what the script says.

Its parts between bars are for one rank each, their words are done one after the other.
"""

import os
import signal
import socket
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from fulcrum.domain import errors
from fulcrum.worker.ranks.__main__ import Telling
from fulcrum.worker.ranks.lines import (
    STOP,
    Done,
    Failed,
    Note,
    Point,
    Read,
    Saved,
    Step,
    line_of,
    question_of,
)


@contextmanager
def hanging():
    try:
        yield
    finally:
        time.sleep(60)


def main():
    wire = socket.socket(fileno=int(sys.argv[2]))
    lines = wire.makefile("rb")
    question = question_of(lines.readline())
    folder = Path(question.meeting)

    def say(said):
        wire.sendall(line_of(said))

    for word in sys.argv[1].split("|")[question.rank].split():
        what, _, value = word.partition(":")
        match what:
            case "read":
                say(Read(int(value)))
            case "step":
                say(Step(int(value), 9))
            case "saved":
                say(Saved())
            case "point":
                say(Point({"loss": float(value)}))
            case "note":
                say(Note(value))
            case "done":
                (folder / "weights").write_text(value)
                say(Done(str(folder / "weights")))
            case "fail":
                say(Failed(value, f"rank {question.rank} says so", 7.0))
                os._exit(1)
            case "raise":  # as the real ones do, and what would be tidied up waits for others
                with hanging(), Telling(wire, question).failures():
                    raise getattr(errors, value)(f"rank {question.rank} says so")
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(int(value))
            case "listen":
                assert lines.readline() == STOP
                say(Done(None))
            case "wait":
                time.sleep(float(value))


if __name__ == "__main__":
    main()
