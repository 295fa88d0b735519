"""Tests that name what is missing when something is added in one place and forgotten in another."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import fulcrum
from fulcrum.domain import corrections, errors
from fulcrum.domain.edits import Condition, Edit

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "services" / "fulcrum").rglob("*.py"))
MODULES = sorted(m.name for m in pkgutil.walk_packages(fulcrum.__path__, "fulcrum."))


def all_errors() -> list[type[errors.FulcrumError]]:
    found, waiting = [], [errors.FulcrumError]
    while waiting:
        error = waiting.pop()
        found.append(error)
        waiting.extend(error.__subclasses__())
    return found


def test_every_domain_error_has_its_own_reason_and_a_docstring():
    reasons = [e.__dict__.get("reason") for e in all_errors()]
    assert None not in reasons
    assert len(set(reasons)) == len(reasons)
    assert all(e.__doc__ for e in all_errors())


def test_every_domain_error_stands_in_the_tree_at_the_top_of_its_module():
    drawn = set(re.findall(r"\b[A-Z][A-Za-z]+\b", errors.__doc__ or ""))
    assert {e.__name__ for e in all_errors()} <= drawn


def test_every_domain_error_that_is_a_leaf_is_raised_somewhere():
    # Called, or handed over to what raises it.
    used: set[str] = set()
    for path in SOURCES:
        if path.name != "errors.py":
            calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            parts = [p for c in calls for p in (c.func, *c.args, *(k.value for k in c.keywords))]
            used |= {getattr(p, "id", None) or getattr(p, "attr", "") for p in parts}
    unused = [e.__name__ for e in all_errors() if not e.__subclasses__() and e.__name__ not in used]
    assert unused == []


def test_every_edit_and_condition_kind_can_be_read_from_json():
    assert set(corrections.EDIT_KINDS.values()) == set(get_args(Edit))
    assert set(corrections.CONDITION_KINDS.values()) == set(get_args(Condition))


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_for(module):
    path = Path(importlib.util.find_spec(module).origin)
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or (path.name == "__init__.py" and not tree.body)


def test_science_does_not_hide_its_shapes_behind_string_annotations():
    science = [p for p in SOURCES if "science" in p.parts]
    assert [p.name for p in science if "from __future__ import annotations" in p.read_text()] == []


def run_without(packages: list[str], modules: list[str]) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys\n"
        f"blocked = {packages!r}\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in blocked:\n"
        "            raise ImportError('blocked: ' + name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import importlib\n"
        f"for m in {modules!r}: importlib.import_module(m)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT / "services"), "PATH": "/usr/bin:/bin"},
    )


def test_domain_data_sets_and_statistics_import_without_torch():
    wanted = [
        m
        for m in MODULES
        if m.startswith(("fulcrum.domain", "fulcrum.datasets", "fulcrum.science.validation"))
    ]
    assert len(wanted) > 10
    done = run_without(["torch", "open_clip", "timm", "torchvision"], wanted)
    assert done.returncode == 0, done.stderr


def test_the_command_line_starts_without_torch():
    # `fulcrum --help` must answer at once; a subcommand imports what it needs.
    done = run_without(
        ["torch", "open_clip", "timm", "torchvision", "matplotlib", "scipy"], ["fulcrum.cli.main"]
    )
    assert done.returncode == 0, done.stderr


def registries() -> list[tuple[str, str]]:
    from fulcrum.datasets.formats import FORMATS
    from fulcrum.science.attribution.methods import METHODS
    from fulcrum.science.sae.variants import VARIANTS

    names = [("VARIANTS", v) for v in VARIANTS] + [("METHODS", m) for m in METHODS]
    return names + [("FORMATS", f) for f in FORMATS]


def test_every_entry_of_a_registry_has_a_test():
    tests = {"VARIANTS": "science/sae", "METHODS": "science/attribution", "FORMATS": "datasets"}
    missing = []
    for registry, name in registries():
        text = "\n".join(p.read_text() for p in (ROOT / "tests" / tests[registry]).rglob("test_*.py"))
        if name not in text:
            missing.append(f"{registry}[{name!r}]")
    assert missing == []


def test_every_command_offers_json():
    import typer

    from fulcrum.cli.main import app

    def commands(group, path):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from commands(command, [*path, name])
            else:
                yield " ".join([*path, name]), command

    found = dict(commands(typer.main.get_command(app), []))
    assert {"demo", "explain", "steer", "suggest", "validate", "train-sae", "index", "bench steer"} <= set(
        found
    )
    without = [name for name, c in found.items() if not any("--json" in p.opts for p in c.params)]
    assert without == []


def test_the_readme_names_every_command_and_both_of_its_own():
    import typer

    from fulcrum.cli.main import app

    readme = (ROOT / "README.md").read_text()
    for name in typer.main.get_command(app).commands:
        assert f"fulcrum {name}" in readme
    assert "pip install uv && uv run fulcrum demo" in readme
    assert "pip install uv && uv run poe test" in readme


def test_ci_runs_the_readmes_test_command():
    assert "pip install uv && uv run poe test" in (ROOT / ".ci" / "run").read_text()


def test_nothing_committed_names_a_package_host_or_unpickles():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    hosts = re.compile(r"https?://[a-z.]*(pypi|pythonhosted|debian|npmjs)")
    loads = re.compile(r"pickle\.load|weights_only=False")
    bad = []
    for name in tracked:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".json"} and path.is_file():
            text = path.read_text()
            if hosts.search(text) or (name.startswith("services") and loads.search(text)):
                bad.append(name)
    assert bad == []
    assert "uv.lock" not in tracked


def test_the_readme_shows_the_script_of_ten_lines_that_is_tested():
    script = (ROOT / "tests" / "client" / "ten_lines.py").read_text().strip()
    assert script in (ROOT / "README.md").read_text()
