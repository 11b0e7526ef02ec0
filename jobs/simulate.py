"""simulate: the raw logs of a simulated shop."""

from sparkrec.cli import run_job
from sparkrec.errors import ConfigError
from sparkrec.ingest import sources
from sparkrec.pipeline import Run


def simulate(run: Run) -> None:
    """The raw logs of a simulated shop, where they are not there yet."""
    source = sources.of(run)
    if source.name != "simulator":
        raise ConfigError(f"source.name is '{source.name}', so there is nothing to simulate. Run the stage 'ingest'.")
    source.prepare(run)


if __name__ == "__main__":
    run_job(simulate)
