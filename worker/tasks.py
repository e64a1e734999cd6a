"""The tasks: an id comes in, the database says what is to be done. Doing it twice does nothing twice."""

from worker import inspections, jobs, plans
from worker.celery import app


@app.task(name="worker.inspect_model")  # type: ignore[untyped-decorator]
def inspect_model(model_id: str) -> None:
    inspections.inspect_model(app.runtime, model_id)


@app.task(name="worker.inspect_dataset")  # type: ignore[untyped-decorator]
def inspect_dataset(dataset_id: str) -> None:
    inspections.inspect_dataset(app.runtime, dataset_id)


@app.task(name="worker.run_job")  # type: ignore[untyped-decorator]
def run_job(job_id: str) -> None:
    jobs.run_job(app.runtime, job_id)


@app.task(name="worker.plan")  # type: ignore[untyped-decorator]
def plan(plan_id: str) -> None:
    plans.make_plan(app.runtime, plan_id)
