"""`python killed.py FILE`: a worker that asks the questions in a file, each a line, until it is killed."""

import sys
from pathlib import Path

from fulcrum.worker.ranks.lines import question_of
from fulcrum.worker.ranks.together import train_together


class Deaf:
    """Lets a training go on."""

    def activations(self, n_tokens): ...

    def step(self, n_steps, n_steps_in_all): ...

    def saved(self): ...

    def point(self, values): ...

    def note(self, text): ...


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_bytes().splitlines()
    train_together([question_of(line) for line in lines], Deaf())
