"""Puts Delta's two jars where every Spark of this environment finds them: pyspark's own ``jars`` folder.

Spark's Ivy resolves them once; each is checked against its hash. A cluster that has Delta installed, or that
passes ``--jars`` or ``--packages``, does not need this.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyspark

VERSION = "4.4.0"
JARS = {
    f"io.delta_delta-spark_4.1_2.13-{VERSION}.jar": "75a9400986853c061f5109f012547de2545a5759e5e752e5ef633dabe16a4f10",
    f"io.delta_delta-storage-{VERSION}.jar": "c46735481fa8e326b0957be02b4420cbcab4b325bb08009b7f2045a95133f1cc",
}


def main() -> None:
    home = Path(pyspark.__file__).parent
    if all((home / "jars" / name).exists() for name in JARS):
        return
    with tempfile.TemporaryDirectory() as folder:
        nothing = Path(folder) / "nothing.py"
        nothing.write_text("")  # an application is needed for the packages to be resolved
        environment = os.environ | {"SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable}
        run = subprocess.run(
            [home / "bin" / "spark-submit", "--master", "local[1]",
             "--packages", f"io.delta:delta-spark_4.1_2.13:{VERSION}",
             "--conf", f"spark.jars.ivy={folder}/ivy", nothing],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        for name, expected in JARS.items():
            jar = Path(folder) / "ivy" / "jars" / name
            if not jar.exists():
                sys.exit(f"{name} could not be fetched from Maven Central:\n{run.stderr[-3000:]}")
            found = hashlib.sha256(jar.read_bytes()).hexdigest()
            if found != expected:
                sys.exit(f"{name} has the SHA-256 {found}, not the expected {expected}. Nothing was installed.")
        for name in JARS:
            shutil.copy(Path(folder) / "ivy" / "jars" / name, home / "jars" / name)


if __name__ == "__main__":
    main()
