"""Records of `/v1/evaluations`."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from fulcrum.gateway.body import Body
from fulcrum.gateway.schemas import Amount, ClassSet, Id, Prompt, Seed, Shown, Text

Outcome = Literal["still_right", "broken", "fixed", "still_wrong", "moved", "changed", "unchanged"]
EvaluationKind = Literal["validation", "sweep"]


class FrozenImageSet(Shown):
    """An image set as a validation judged it."""

    id: str = Field(description="Id of the set; it may have changed or been deleted since.")
    name: str = Field(description="Its name then.")
    purpose: Literal["slice", "invariant"] = Field(description="Its purpose then.")
    sha256: str = Field(description="Artifact with the ids of its images then.")
    n_images: int = Field(description="Its images then, of all splits.")


class EvaluationRecord(Shown):
    """What a version of a correction did to a split of a data set; never changed."""

    id: str = Field(description="Id.")
    project_id: str = Field(description="Project that it belongs to.")
    kind: EvaluationKind = Field(description="One correction judged, or many gains of it.")
    correction_id: str = Field(description="Correction that was judged.")
    number: int = Field(description="Its version.")
    correction_sha256: str = Field(description="Hash of the version's content.")
    dataset_id: str = Field(description="Data set that it was judged on.")
    dataset_digest: str = Field(description="Content of the data set then.")
    split: str = Field(description="Split that was judged.")
    model_sha256: str = Field(description="Weights of the model.")
    sae_sha256: str = Field(description="Weights of the SAE.")
    code_version: str = Field(description="Version of Fulcrum.")
    specification_sha256: str = Field(description="Hash of the frozen specification.")
    job_id: str = Field(description="Job that computed it.")
    report_sha256: str = Field(description="Artifact of the report.")
    created_by: str = Field(description="Id of the user who asked.")
    created_at: datetime = Field(description="When it was kept.")
    verdict: str | None = Field(None, description="One of five; null for a sweep.")
    badge: str = Field("", description="The verdict as it is shown, with what qualifies it.")
    look: int = Field(0, description="Number of the look on select or confirm, 0 on discover.")
    gates: dict[str, str] = Field(default={}, description="Gate to pass, fail or undecided.")
    numbers: dict[str, Any] = Field(default={}, description="Numbers of a summary; shares, not points.")
    columns_sha256: str | None = Field(None, description="Artifact of the table of images, as numpy columns.")
    parquet_sha256: str | None = Field(None, description="Artifact of the table of images, as Parquet.")
    image_sets: list[FrozenImageSet] = Field(
        default=[], description="Image sets that were judged, as they were."
    )


class SubjectChange(Shown):
    """One part of what the verdict belongs to that is not what it was."""

    part: str = Field(description="Which part.")
    then: str = Field(description="What it was.")
    now: str = Field(description="What it is.")


class Evaluation(Shown):
    """An evaluation with its whole report."""

    record: EvaluationRecord = Field(description="The record.")
    changes: list[SubjectChange] = Field(description="What changed since: the verdict is stale unless empty.")
    report: dict[str, Any] = Field(description="Every number, with provenance.")


class Difference(Shown):
    """A number, gate or verdict that is not the same in both."""

    name: str = Field(description="Which one.")
    then: Any = Field(description="In the first.")
    now: Any = Field(description="In the other.")


class EvaluationComparison(Shown):
    """An evaluation beside another one."""

    then_id: str = Field(description="The first.")
    now_id: str = Field(description="The other.")
    changes: list[SubjectChange] = Field(description="Parts of what the verdicts belong to that differ.")
    differences: list[Difference] = Field(description="Numbers, gates and verdict that differ.")
    n_images: int = Field(0, description="Images in both tables; 0 for sweeps.")
    n_base_differs: int = Field(0, description="Of these, with another answer of the unedited model.")
    n_corrected_differs: int = Field(0, description="Of these, with another answer of the corrected model.")
    n_only_then: int = Field(0, description="Images in the first table alone.")
    n_only_now: int = Field(0, description="Images in the other table alone.")
    max_margin_difference: float = Field(
        0.0, description="Largest difference of corrected margins, in logits."
    )


class Recomputation(Body):
    """What an evaluation is computed again for."""

    newest: bool = Field(False, description="Judge the newest version instead of the one that was judged.")


class FlipFilter(Body):
    """Images of a flip board, as `/v1/evaluations/{id}/images` lists them."""

    evaluation_id: Id = Field(description="Evaluation whose flip board it is.")
    outcome: Outcome | None = Field(None, description="Images of this outcome only.")
    where: list[Annotated[str, StringConstraints(max_length=400)]] = Field(
        default=[], max_length=16, description="`column=value`; several must all hold."
    )
    evaluated_only: bool = Field(
        True, description="Leave out images of other splits and those that were seen before."
    )
    changed_only: bool = Field(
        False, description="Only images whose answer is another one, whatever the outcome."
    )


class FlippedImage(Shown):
    """A card of the flip board."""

    id: str = Field(description="Id of the image in its data set.")
    split: str = Field(description="Its split.")
    label: str | None = Field(description="Its class, null where there is none.")
    base: str = Field(description="Answer of the unedited model.")
    corrected: str = Field(description="Answer of the corrected model.")
    outcome: Outcome = Field(description="What the correction did to it.")
    target: bool = Field(description="Whether it shows the failure mode.")
    evaluated: bool = Field(description="Whether it counts: of the judged split and never seen before.")
    base_confidence: float = Field(description="Probability of the answer before.")
    corrected_confidence: float = Field(description="Probability of the answer after.")
    margin_before: float = Field(description="Logit of the label over the best other, before.")
    margin_after: float = Field(description="The same after.")
    margin_change: float = Field(description="After minus before.")
    kl: float = Field(description="KL(base || corrected) in nats.")
    groups: dict[str, str] = Field(default={}, description="Its groups.")
    sets: list[str] = Field(default=[], description="Names of the judged image sets that it is in.")


class ConfusionDelta(Shown):
    """Corrected minus base confusion of the judged images."""

    class_names: list[str] = Field(description="Rows (labels) and columns (answers).")
    delta: list[list[int]] = Field(description="Counts; empty for more than 100 classes.")
    pairs: list[dict[str, Any]] = Field(description="The most frequent changes of answer.")


class Slices(Shown):
    """Slices of the judged images."""

    slices: list[dict[str, Any]] = Field(description="n, before, after, net, interval, p, q and MDE of each.")
    broken: list[dict[str, Any]] = Field(description="Slices in which broken images gather.")
    fixed: list[dict[str, Any]] = Field(description="Slices in which fixed images gather.")
    moved: list[dict[str, Any]] = Field(
        description="Slices in which images moved from wrong to wrong gather."
    )


class EvaluationPlan(Shown):
    """What a split can show, before anything is run."""

    n: int = Field(description="Images of the split.")
    mde: float | None = Field(
        description="Smallest net gain that is found with 80 % power, a share; null: none."
    )
    discordant_share: float = Field(
        description="Share of images whose correctness changes, as assumed for it."
    )
    images_for_harm: int = Field(description="Images that bound the harm by its margin when none is broken.")
    can_pass_harm: bool = Field(description="Whether the split has so many.")
    n_looks: int = Field(description="Looks at the split so far.")
    next_look: int = Field(description="Number of the next look of this version at it.")
    most_forward_images: int = Field(
        description="Images that go through the model at most; affected ones only."
    )


class EvaluationPlanQuestion(Body):
    """A validation that may be run."""

    dataset_id: Id = Field(description="Data set to judge on.")
    split: Literal["discover", "select", "confirm"] = Field("select", description="Split to judge.")
    number: int | None = Field(None, ge=1, le=2**31 - 1, description="Version; the newest by default.")
    harm_margin: float = Field(0.01, gt=0, lt=1, description="Largest share of images that may be broken.")
    discordant_share: float = Field(0.05, gt=0, lt=1, description="Assumed share of changed images.")


class Where(Body):
    """Images whose column has this value; several must all hold."""

    column: Prompt = Field(max_length=200, description="A group column, or `label`.")
    value: Text = Field(max_length=2_000, description="Its value.")


class ValidationQuestion(Body):
    """A version of a correction to be judged on a split."""

    dataset_id: Id = Field(description="Data set to judge on.")
    split: Literal["discover", "select", "confirm"] = Field(
        "select", description="discover is free, looks at select are counted, confirm is sealed."
    )
    number: int | None = Field(None, ge=1, le=2**31 - 1, description="Version; the newest by default.")
    where: list[Where] = Field(default=[], max_length=16, description="The failure mode; none: all images.")
    same_cue_legitimate: list[Where] = Field(
        default=[], max_length=16, description="Images on which the cue may speak."
    )
    specification: dict[str, Any] = Field(
        default={}, max_length=40, description="Fields of the specification that differ from the default."
    )
    n_controls: int = Field(100, ge=0, le=1000, description="Matched controls; 0 leaves the gate out.")
    image_sets: list[Id] = Field(
        default=[],
        max_length=32,
        description="Image sets of the data set to judge too, as they are now: each a row of the slice table, and an "
        "invariant list a gate as well.",
    )
    concept_bank: list[Prompt] = Field(
        default=[], max_length=1000, description="Held-out prompts whose nearness to the images is watched."
    )
    task: ClassSet | None = Field(
        None, description="Class set; by default the correction's own, else the labels."
    )
    seed: Seed = Field(0, description="Of controls, samples and bootstrap.")


class SweepQuestion(Body):
    """A version of a correction to be judged at many gains."""

    dataset_id: Id = Field(description="Data set to judge on.")
    gains: list[Amount] = Field(min_length=1, max_length=64, description="Gains of its `scale` edits.")
    split: Literal["discover", "select"] = Field("select", description="On select each gain is a look.")
    number: int | None = Field(None, ge=1, le=2**31 - 1, description="Version; the newest by default.")
    where: list[Where] = Field(default=[], max_length=16, description="The failure mode; none: all images.")
    n_controls: int = Field(100, ge=0, le=1000, description="Matched controls of the cloud.")
    task: ClassSet | None = Field(
        None, description="Class set; by default the correction's own, else the labels."
    )
    seed: Seed = Field(0, description="Of controls and samples.")


class VersionOf(Body):
    """A version of a correction."""

    correction_id: Id = Field(description="The correction.")
    number: int | None = Field(None, ge=1, le=2**31 - 1, description="Version; the newest by default.")


class InteractionQuestion(Body):
    """Saved corrections that may be used together."""

    dataset_id: Id = Field(description="Data set to judge on.")
    corrections: list[VersionOf] = Field(
        min_length=2, max_length=12, description="Made for one SAE; every pair of them is judged."
    )
    split: Literal["discover", "select"] = Field(
        "select", description="On select each correction and each pair is a look."
    )
    where: list[Where] = Field(
        default=[], max_length=16, description="Images to judge; none: all of the split."
    )
    task: ClassSet | None = Field(
        None, description="Class set; by default the corrections' own where they agree, else the labels."
    )
    seed: Seed = Field(0, description="Of the bootstrap.")


class SuggestionQuestion(Body):
    """A failure group to find a correction for."""

    sae_id: Id = Field(description="SAE whose latents may be edited.")
    where: list[Where] = Field(min_length=1, max_length=16, description="The failure group.")
    clean: list[Where] = Field(
        default=[], max_length=16, description="Images to leave alone; none: all others of the split."
    )
    split: Literal["discover", "select"] = Field("discover", description="Split to search on.")
    max_clean_loss: float = Field(0.01, gt=0, lt=1, description="Largest loss of clean accuracy, a share.")
    max_edits: int = Field(64, ge=1, le=1000, description="Largest correction.")
    budget: int = Field(800, ge=1, le=100_000, description="Sets of edits that are tried at most.")
    task: ClassSet | None = Field(None, description="Class set; by default the labels.")
    seed: Seed = Field(0, description="Of samples.")
