"""`/v1/evaluations`: what corrections did to data sets."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response

from fulcrum.domain.evaluations import FlipFilter
from fulcrum.gateway.deps import (
    ArtifactsDep,
    AskerDep,
    PageDep,
    PageOf,
    ProjectParam,
    StoreDep,
    answer,
    answer_page,
)
from fulcrum.gateway.evaluations import asking, comparing, service
from fulcrum.gateway.evaluations.schemas import (
    ConfusionDelta,
    Evaluation,
    EvaluationComparison,
    EvaluationKind,
    EvaluationPlan,
    EvaluationPlanQuestion,
    EvaluationRecord,
    FlippedImage,
    InteractionQuestion,
    Outcome,
    Recomputation,
    Slices,
    SuggestionQuestion,
    SweepQuestion,
    ValidationQuestion,
)
from fulcrum.gateway.jobs.schemas import JobRecord
from fulcrum.gateway.jobs.submitting import SubmitDep
from fulcrum.gateway.schemas import PathId

router = APIRouter(tags=["evaluations"])


@router.post("/v1/corrections/{correction_id}:plan", response_model=EvaluationPlan)
def plan_evaluation(
    correction_id: PathId, body: EvaluationPlanQuestion, asker: AskerDep, store: StoreDep
) -> JSONResponse:
    """What a split can show about a correction and what it costs at most; runs nothing and counts no look."""
    return answer(service.plan(store, asker, correction_id, body))


@router.post("/v1/corrections/{correction_id}:validate", status_code=202, response_model=JobRecord)
def validate_correction(
    correction_id: PathId, body: ValidationQuestion, asker: AskerDep, jobs: SubmitDep
) -> JSONResponse:
    """Judges a version on a split, as a job: its result names the evaluation. Looks at select and confirm are counted.

    The data set is indexed first where it is not. The same question again is answered by the same job.
    """
    return answer(asking.validate(jobs, asker, correction_id, body), 202)


@router.post("/v1/corrections/{correction_id}:sweep", status_code=202, response_model=JobRecord)
def sweep_correction(
    correction_id: PathId, body: SweepQuestion, asker: AskerDep, jobs: SubmitDep
) -> JSONResponse:
    """Judges a version at many gains on a split, as a job. On select every gain counts as a look."""
    return answer(asking.sweep(jobs, asker, correction_id, body), 202)


@router.post("/v1/corrections:interact", status_code=202, response_model=JobRecord)
def interact_corrections(body: InteractionQuestion, asker: AskerDep, jobs: SubmitDep) -> JSONResponse:
    """Judges every pair of some saved corrections beside each of them alone, as a job: what breaks only together.

    Its result is the matrix. On select each correction and each pair is counted as a look; confirm stays sealed.
    """
    return answer(asking.interactions(jobs, asker, body), 202)


@router.post("/v1/datasets/{dataset_id}:suggest", status_code=202, response_model=JobRecord)
def suggest_correction(
    dataset_id: PathId, body: SuggestionQuestion, asker: AskerDep, jobs: SubmitDep
) -> JSONResponse:
    """Searches one correction for a failure group, as a job: its result names the correction's artifact."""
    return answer(asking.suggest(jobs, asker, dataset_id, body), 202)


@router.get("/v1/evaluations", response_model=PageOf[EvaluationRecord])
def list_evaluations(
    asker: AskerDep,
    store: StoreDep,
    page: PageDep,
    project_id: ProjectParam = None,
    kind: Annotated[EvaluationKind | None, Query(description="Evaluations of this kind only.")] = None,
    correction_id: Annotated[str | None, Query(max_length=64, description="Of this correction only.")] = None,
    dataset_id: Annotated[str | None, Query(max_length=64, description="On this data set only.")] = None,
) -> JSONResponse:
    """Evaluations of a project, newest first."""
    found = service.page(
        store, asker, project_id, page, kind=kind, correction_id=correction_id, dataset_id=dataset_id
    )
    return answer_page(found)


# Before `/{evaluation_id}`, which would take the verb for a part of the id.
@router.get("/v1/evaluations/{evaluation_id}:compare", response_model=EvaluationComparison)
def compare_evaluations(
    evaluation_id: PathId,
    asker: AskerDep,
    store: StoreDep,
    artifacts: ArtifactsDep,
    other_id: Annotated[str, Query(max_length=64, description="The evaluation to put beside it.")],
) -> JSONResponse:
    """Two evaluations beside each other: what a recomputation changed, in numbers, gates and images."""
    return answer(comparing.compare(store, artifacts, asker, evaluation_id, other_id))


@router.post("/v1/evaluations/{evaluation_id}:recompute", status_code=202, response_model=JobRecord)
def recompute_evaluation(
    evaluation_id: PathId, body: Recomputation, asker: AskerDep, jobs: SubmitDep
) -> JSONResponse:
    """Asks the question of an evaluation again, of the data set, model and code of today, as a job: every part is
    computed anew.

    The evaluation stays as it is; the new one can be compared with it. It is another look.
    """
    return answer(asking.recompute(jobs, asker, evaluation_id, body.newest), 202)


@router.get("/v1/evaluations/{evaluation_id}", response_model=Evaluation)
def get_evaluation(
    evaluation_id: PathId, asker: AskerDep, store: StoreDep, artifacts: ArtifactsDep
) -> JSONResponse:
    """One evaluation with its whole report, and what changed since."""
    return answer(service.get(store, artifacts, asker, evaluation_id))


@router.get("/v1/evaluations/{evaluation_id}/images", response_model=PageOf[FlippedImage])
def list_flipped_images(
    evaluation_id: PathId,
    asker: AskerDep,
    store: StoreDep,
    artifacts: ArtifactsDep,
    page: PageDep,
    outcome: Annotated[Outcome | None, Query(description="Images of this outcome only.")] = None,
    where: Annotated[
        list[Annotated[str, Query(max_length=400)]] | None,
        Query(max_length=16, description="`column=value`, also `label=NAME`; several must all hold."),
    ] = None,
    evaluated_only: Annotated[
        bool, Query(description="Leave out images of other splits and those that were seen before.")
    ] = True,
    changed_only: Annotated[
        bool, Query(description="Only images whose answer is another one, whatever the outcome.")
    ] = False,
) -> JSONResponse:
    """The flip board: images whose margin changed most first."""
    wanted = FlipFilter(evaluation_id, outcome, tuple(where or ()), evaluated_only, changed_only)
    return answer_page(service.images(store, artifacts, asker, wanted, page))


@router.get(
    "/v1/evaluations/{evaluation_id}/table",
    response_class=Response,
    responses={
        200: {
            "content": {
                "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
                "text/csv": {"schema": {"type": "string"}},
            }
        }
    },
)
def get_table(
    evaluation_id: PathId,
    asker: AskerDep,
    store: StoreDep,
    artifacts: ArtifactsDep,
    format: Annotated[Literal["parquet", "csv"], Query(description="File format.")] = "parquet",
) -> Response:
    """One row for each image: every figure of the report can be recomputed from it."""
    if format == "csv":
        content, media_type = service.as_csv(store, artifacts, asker, evaluation_id), "text/csv"
    else:
        content = service.parquet(store, artifacts, asker, evaluation_id)
        media_type = "application/vnd.apache.parquet"
    return Response(
        content,
        media_type=media_type,
        headers={"Content-Disposition": f'attachment; filename="images.{format}"'},
    )


@router.get("/v1/evaluations/{evaluation_id}/confusion", response_model=ConfusionDelta)
def get_confusion(
    evaluation_id: PathId, asker: AskerDep, store: StoreDep, artifacts: ArtifactsDep
) -> JSONResponse:
    """Which answers became which."""
    return answer(service.confusion(store, artifacts, asker, evaluation_id))


@router.get("/v1/evaluations/{evaluation_id}/slices", response_model=Slices)
def get_slices(
    evaluation_id: PathId, asker: AskerDep, store: StoreDep, artifacts: ArtifactsDep
) -> JSONResponse:
    """The slice table, and slices found by searching the flips."""
    return answer(service.slices(store, artifacts, asker, evaluation_id))
