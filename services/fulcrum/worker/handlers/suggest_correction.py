"""`suggest_correction`: one correction for a failure group, found on the split that may be searched."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fulcrum.domain.corrections import to_dict
from fulcrum.domain.errors import InvalidRequest
from fulcrum.domain.jobs import Shard, ShardResult, SuggestCorrection
from fulcrum.worker.evaluations import as_json
from fulcrum.worker.questions import OpenRun
from fulcrum.worker.work import Work

_CURVES = ("n_edits", "n_evaluated", "group_accuracy", "clean_accuracy")


class SuggestCorrectionHandler:
    """A greedy search: each step stands on the one before, so there are no shards."""

    def __init__(self, open_run: OpenRun) -> None:
        self._open_run = open_run

    def plan(self, work: Work) -> Sequence[Shard]:
        """No shards. Raises InvalidRequest for a search on confirm or without a failure group."""
        spec = _spec(work)
        if spec.split == "confirm":
            raise InvalidRequest("confirm proves corrections: searching on it would make its proof worthless")
        if not spec.where:
            raise InvalidRequest("say which images fail: `where` is empty")
        return ()

    def run_shard(self, work: Work, shard: Shard) -> bytes:
        """Never called: the plan has no shards."""
        raise AssertionError("a suggestion has no shards")

    def reduce(self, work: Work, results: Sequence[ShardResult]) -> dict[str, Any]:
        """The whole search. Raises InvalidDataset."""
        from fulcrum.datasets.selecting import mask_where
        from fulcrum.engine.group_search import suggest_for_group

        spec = _spec(work)
        run = self._open_run(work, spec.dataset_id, spec.sae_id, spec.task)
        inside = np.zeros(len(run.dataset), dtype=bool)
        inside[run.dataset.numbers(split=spec.split)] = True
        group = mask_where(run.dataset, spec.where) & inside
        others = (mask_where(run.dataset, spec.clean) if spec.clean else ~group) & inside & ~group

        def tell(step: dict[str, Any]) -> None:
            work.progress("searching", min(step["n_evaluated"], spec.budget), spec.budget, "sets of edits")
            work.log(
                f"{step['action']}: {step['n_edits']} edits, group {step['group_accuracy']:.1%}, "
                f"clean {step['clean_accuracy']:.1%}"
            )
            work.metric({name: step[name] for name in _CURVES})

        found = suggest_for_group(
            run,
            np.flatnonzero(group),
            np.flatnonzero(others),
            max_clean_loss=spec.max_clean_loss,
            max_edits=spec.max_edits,
            budget=spec.budget,
            note=f"{spec.split}: " + " and ".join(f"{w.column}={w.value}" for w in spec.where),
            on_prefix=lambda done, total: work.progress("activations", done, total),
            on_step=tell,
        )
        correction = to_dict(found.correction)
        return {
            "correction_sha256": found.correction.sha256,
            # With its origin, which names the images that can prove nothing about it.
            "correction_artifact": work.artifacts.put_bytes(as_json(correction)),
            "latents": list(found.correction.latents),
            "n_edits": len(found.correction.edits),
            "group_accuracy_before": found.group_accuracy_before,
            "group_accuracy_after": found.group_accuracy_after,
            "clean_accuracy_before": found.clean_accuracy_before,
            "clean_accuracy_after": found.clean_accuracy_after,
            "n_evaluated": found.n_evaluated,
            # Every step again: the job's curves may tell one twice and are not kept for ever.
            "path": [{name: step[name] for name in ("action", *_CURVES)} for step in found.path],
            "n_group": int(group.sum()),
            "n_clean": int(others.sum()),
        }


def _spec(work: Work) -> SuggestCorrection:
    spec = work.job.spec
    assert isinstance(spec, SuggestCorrection)
    return spec
