"""What was planted in the demo world is found by asking the platform, as the demo does."""

from tests.gateway.resources.test_experts import client, dataset, work, world

from fulcrum.client import Client
from fulcrum.demo.experts import NAMES, find_planted_experts, planted_sentences

__all__ = ["client", "dataset", "work", "world"]


def test_objects_colours_and_written_words_have_experts(lab, client, dataset, work):
    def ended(job, words):
        work()
        done = client.jobs.wait(job)
        assert done.state == "succeeded", f"{words}: {done.error}"
        return done

    assert isinstance(client, Client)
    model, sae = client.models.get(lab.model["id"]), client.saes.get(lab.sae["id"])
    found = find_planted_experts(client, model, sae, dataset, ended, n_pos=5, n_neg=30)
    for search, units in ((found.latents, "latents"), (found.vision, "vision"), (found.text, "text")):
        assert (search.record.units, search.record.name) == (units, NAMES[units])
        assert search.one_base_rate
        assert {"experts", "random_weights", "mean_embedding"} <= {s.of for s in search.summaries}
    domains = {c.name: c.domain for c in found.latents.concepts}
    assert {"label", "colour", "sticker_word"} >= set(domains.values()) >= {"label", "colour"}
    assert set(found.best) == set(domains)
    assert all(units[0].rank == 1 and len(units) == 5 for units in found.best.values())
    assert {c.domain for c in found.text.concepts} == {"object", "colour"}


def test_sentences_about_what_was_planted_fit_the_small_text_tower():
    built = planted_sentences()
    assert max(len(text.encode()) for text in built.sentences) <= 38
    assert len({(len(c.positives), len(c.negatives)) for c in built.concepts}) == 1
