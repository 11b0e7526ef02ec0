"""publish: a run's lists → files or Redis, switched in one step."""

from sparkrec.cli import run_job
from sparkrec.pipeline import Run
from sparkrec.serving import publication


def publish(run: Run) -> None:
    """Writes a run's lists to where they are served from, and switches to them once they are all there."""
    settings = run.settings.publish
    publication.publish(run, publication.store(run, settings), settings)


if __name__ == "__main__":
    run_job(publish)
