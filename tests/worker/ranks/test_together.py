"""What a worker makes of processes that train for it, with ones that only pretend to."""

import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from tests.worker.ranks import pretended

from fulcrum.domain.errors import InternalError, ServiceUnavailable, Unavailable, UnreadableImage, by_reason
from fulcrum.domain.jobs import TrainSae
from fulcrum.domain.models import ModelRef
from fulcrum.engine.sae_training import training_bytes
from fulcrum.science.sae.training.config import TrainConfig
from fulcrum.worker import pool
from fulcrum.worker.held import Stopping
from fulcrum.worker.pool import gpus_of
from fulcrum.worker.ranks import together
from fulcrum.worker.ranks.lines import OS_ERROR, Failed, Question, line_of, question_of
from fulcrum.worker.ranks.together import TrainingProcesses, train_together
from fulcrum.worker.settings import Settings

ROOT = Path(__file__).resolve().parents[3]


class Watching:
    """Notes what it hears; `step` answers what it is given."""

    def __init__(self, answer=None):
        self.heard, self.answer = [], answer

    def activations(self, n_tokens):
        if n_tokens:
            self.heard.append(("activations", n_tokens))

    def step(self, n_steps, n_steps_in_all):
        self.heard.append(("step", n_steps, n_steps_in_all))
        return self.answer

    def saved(self):
        self.heard.append(("saved",))

    def point(self, values):
        self.heard.append(("point", values))

    def note(self, text):
        self.heard.append(("note", text))


def questions(folder, n):
    return [
        Question(
            rank=rank, size=n, key="k", spec=TrainSae("dat_a", "mdl_b", "mine"), model=ModelRef("tiny"),
            model_name="tiny", dataset_name="d", manifest_sha256="m", artifacts_url="file:///a", artifacts_cache="c",
            activations="a", activations_bytes=0, checkpoints="k", checkpoint_every_s=1.0, meeting=str(folder),
            device="cpu", gpus=(), dtype="float32", n_threads=1, log_level="INFO",
        )
        for rank in range(n)
    ]  # fmt: skip


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains by processes that do what a script says; in the end none of them lives."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'services'}:{ROOT}")
    before = psutil.Process().children(recursive=True)

    def train(script, watching=None):
        n = script.count("|") + 1
        program = (sys.executable, pretended.__file__, script)
        return train_together(questions(tmp_path, n), watching or Watching(), program)

    yield train
    assert set(psutil.Process().children(recursive=True)) <= set(before)


def test_what_the_first_says_is_heard_and_its_weights_come_back(train):
    watching = Watching()
    weights = train("read:5 read:6 step:3 saved point:0.5 note:oh read:7 step:9 done:them|wait:60", watching)
    assert weights == b"them"
    assert [heard for heard in watching.heard if heard[0] != "step"] == [
        ("activations", 5), ("activations", 6), ("saved",), ("point", {"loss": 0.5}), ("note", "oh"),
    ]  # fmt: skip


def test_what_one_of_them_says_of_its_end_is_raised_while_another_waits_for_it(train):
    with pytest.raises(UnreadableImage, match="rank 1 says so"):
        train("step:1 wait:60|raise:UnreadableImage")


def test_every_error_is_raised_as_it_was():
    failed = [Failed(reason, "because", 7.0) for reason in (*by_reason(), OS_ERROR)]
    for reason, error in ((f.reason, together._error_of(f)) for f in failed):
        assert str(error) == "because"
        assert type(error) is (OSError if reason == OS_ERROR else by_reason()[reason])
        assert getattr(error, "retry_after_s", None) == (7.0 if isinstance(error, Unavailable) else None)


def test_the_cause_is_told_and_not_what_it_did_to_the_others(train):
    with pytest.raises(UnreadableImage, match="rank 1 says so"):
        train("fail:INTERNAL_ERROR|wait:0.3 raise:UnreadableImage")
    with pytest.raises(ServiceUnavailable, match=r"process 2 of 2 of the training was killed \(signal 9\)"):
        train("wait:0.3 fail:INTERNAL_ERROR|kill")


def test_an_end_without_a_word_is_an_error_too(train, monkeypatch):
    monkeypatch.setattr(together, "_LAST_WORDS_S", 0.3)
    with pytest.raises(InternalError, match="process 1 of 2 of the training ended without a word"):
        train("step:1 exit:0|wait:60")
    with pytest.raises(InternalError, match="process 2 of 2 of the training ended without a word"):
        train("step:1 wait:60|exit:3")


def test_the_others_may_end_before_the_first_is_done(train):
    assert train("wait:0.5 done:them|exit:0") == b"them"


def test_a_worker_that_stops_lets_them_write_a_checkpoint(train):
    watching = Watching(False)
    assert train("step:1 listen|wait:60", watching) == b""
    assert ("step", 1, 9) in watching.heard


def test_a_worker_that_stops_does_not_wait_for_ever(train, monkeypatch):
    monkeypatch.setattr(together, "_STOP_S", 0.3)
    started = time.monotonic()
    assert train("step:1 wait:60|wait:60", Watching(False)) == b""
    assert time.monotonic() - started < 10


def test_a_question_arrives_as_it_was_asked(tmp_path):
    (question,) = questions(tmp_path, 1)
    assert question_of(line_of(question)) == question


@pytest.mark.parametrize(
    ("wanted", "gpus", "device", "batch_size", "n"),
    [
        (1, (), "cpu", 512, 1),
        (2, (), "cpu", 512, 2),
        (3, (), "cpu", 512, 2),  # a batch is shared evenly
        (4, (), "cpu", 513, 3),
        (2, (), "cpu", 511, 1),
        (4, ("0", "1"), "cuda", 512, 2),
        (2, ("5", "6", "7"), "cuda", 512, 2),
        (2, (), "mps", 512, 1),
    ],
)
def test_as_many_train_as_there_is_something_for(wanted, gpus, device, batch_size, n):
    assert TrainingProcesses(wanted, gpus=gpus).number(torch.device(device), batch_size) == n


@pytest.mark.parametrize(
    ("n_processes", "index", "first"),
    [
        (8, 3, ["3", "4"]),
        (2, 0, ["0", "1", "2", "3"]),
        (2, 1, ["4", "5", "6", "7"]),
        (16, 9, ["1"]),
        (1, 0, ["0"]),
    ],
)
def test_trainings_of_few_processes_take_gpus_of_their_own(n_processes, index, first):
    allowed = [str(i) for i in range(8)]
    found = gpus_of(index, n_processes, allowed)
    assert list(found[: len(first)]) == first
    assert sorted(found) == allowed


def test_the_setting_reaches_the_trainings(tmp_path):
    settings = Settings(
        database_url=f"sqlite:///{tmp_path / 'store.sqlite'}",
        artifacts_url=f"file://{tmp_path / 'artifacts'}",
        scratch_dir=tmp_path / "scratch",
        training_processes=3,
    )
    machine = pool._runner(settings, ("1", "0"), Stopping(), {}).machine
    copies = tmp_path / "scratch" / "artifacts"
    assert machine.training_processes == TrainingProcesses(3, settings.artifacts_url, copies, ("1", "0"))
    machine.store.close()


def test_several_processes_on_the_cpu_need_the_memory_of_each():
    config = TrainConfig("topk", 16, 48, n_tokens=20_000, batch_size=250, k=4)
    one, two = (training_bytes(config, 20_000, n) for n in (1, 2))
    latents = 4 * config.batch_size * config.d_sae
    assert two == 2 * one - latents


def test_several_processes_cannot_train_on_one_gpu():
    assert Settings(device="cuda", training_processes=2).training_processes == 2
    assert Settings(device="cuda:1", training_processes=1).training_processes == 1
    with pytest.raises(
        ValueError, match="2 processes cannot train on the one GPU of FULCRUM_WORKER_DEVICE=cuda:1"
    ):
        Settings(device="cuda:1", training_processes=2)
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Settings(training_processes=0)
