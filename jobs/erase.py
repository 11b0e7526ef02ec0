"""erase: persons → nowhere in the lake."""

from sparkrec.cli import run_job
from sparkrec.ingest import sources
from sparkrec.pipeline import Run
from sparkrec.privacy import erase as erasure
from sparkrec.privacy import persons, suppressed


def erase(run: Run) -> None:
    """Removes users from every table, model and report, with all history, and proves it by reading every file."""
    source = sources.of(run)
    who = persons.find(run, persons.named(run.arguments["users"]))
    key = suppressed.key(run, create=True)
    run.audit.update(users=len(who.given), digest=key.digest("request", "\n".join(sorted(who.stored))))
    run.say(f"erasing {len(who.given):,} user(s)")
    if missing := len(who.given) - persons.known(run, who):
        run.say(
            f"{missing:,} of the ids have no row in silver or gold. If they should have, look for them as the lake has "
            "them: capitals count, and so does 17850.0 against 17850. Erased once, they have none either"
        )

    erasure.suppress(run, who, key)
    models = erasure.forget(run, who)
    deleted = erasure.delete(run, who, source)
    erasure.open_records(run, who)
    run.say("deleted " + ", ".join(f"{rows:,} of {name}" for name, rows in deleted.items() if rows))
    erasure.purge(run)
    erasure.close_records(run)
    scanned = erasure.prove(run, who)

    run.audit.update(deleted=deleted, model_files=models, files_read=scanned.files, bytes_read=scanned.bytes)
    run.count(users=len(who.given), rows_deleted=sum(deleted.values()), files_read=scanned.files)
    run.say(
        f"read {scanned.files:,} files, {scanned.bytes / 1e6:,.1f} MB: none of them is left. Older versions of the "
        f"tables are gone. The log files in {run.settings.source.path} are not the lake's and were not touched; "
        "ingest leaves these users out if it reads them again."
    )


if __name__ == "__main__":
    run_job(erase)
