"""`python -m fulcrum.cli`: the `fulcrum` command, for what starts modules (`torchrun -m`)."""

from fulcrum.cli.main import run

if __name__ == "__main__":
    run()
