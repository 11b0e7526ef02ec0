#!/usr/bin/env bash
# Makes the environment in $1 (default .venv): locked Python packages, Horovod with TensorFlow, Delta's jars, and the
# native kernel. Safe to run again: a finished environment is kept until a lock file or this script changes, the kernel
# until its source does.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
say() { printf '\033[1m%s\033[0m\n' "$*"; }
die() { printf 'sparkrec setup: %s\n' "$*" >&2; exit 2; }

# Spark's scripts, and the JVM's options, are split at blanks.
case "$PWD" in *[[:space:]]*) die "'$PWD' has a blank in it, and Spark does not start below such a folder. Move the checkout." ;; esac

# --- prerequisites: Java 17 and a compiler, each named with the line that installs it --------------------
python=${PYTHON:-python3.11}
command -v "$python" >/dev/null || python=python3
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null ||
    die "Python 3.11 is needed and '$python' is not it. Type: sudo apt-get install python3.11 python3.11-venv   (or set PYTHON=/path/to/python3.11)"
# Not that of an environment, which may be the one that is made anew.
python=$("$python" -c 'import sys; print(sys._base_executable)')
java=${JAVA_HOME:+$JAVA_HOME/bin/}java
version=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1) || true
[ "${version:-0}" -ge 17 ] 2>/dev/null ||
    die "Java 17 is needed and '$java' is ${version:-missing}. Type: sudo apt-get install openjdk-17-jre-headless   (or set JAVA_HOME)"
for tool in gcc g++ make; do
    command -v $tool >/dev/null || die "A C++ compiler is needed for Horovod and the native kernel, and '$tool' is missing. Type: sudo apt-get install build-essential"
done

# The folder counts: scripts in the environment, and the editable install, name it.
stamp="$venv/.ready-$({ pwd; cat requirements/{sparkrec,horovod}.lock requirements/{jars.py,classes.py,setup.sh}; } | sha256sum | cut -c1-16)"
kernel="$venv/.kernel-$(cat setup.py sparkrec/retrieval/native/* | sha256sum | cut -c1-16)"
start=$SECONDS
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
package() {
    pip install --quiet --no-deps --no-build-isolation --editable . ||
        die "the native kernel did not build; the compiler's message is above."
    rm -f "$venv"/.kernel-*
    touch "$kernel"
}
if [ -e "$stamp" ]; then
    if [ ! -e "$kernel" ] || ! compgen -G "sparkrec/retrieval/_scan.*.so" >/dev/null; then
        say "environment: building the native kernel"
        package
    fi
    say "environment: $venv is ready"
    exit 0
fi
say "environment: creating $venv (the first time takes about 5 minutes: 160 packages, Horovod from source, 2 jars)"
# One that was finished, of other locks or in another folder, is not built upon; one that was interrupted is.
if compgen -G "$venv/.ready-*" >/dev/null; then rm -rf "$venv"; fi
"$python" -m venv "$venv"

say "1/4 packages (locked, with hashes)"
pip install --quiet --require-hashes --requirement requirements/sparkrec.lock

say "2/4 Horovod with TensorFlow over Gloo, from source"
# Horovod's build needs TensorFlow already in place, hence no build isolation; its CMake files predate CMake 4.
PATH="$PWD/$venv/bin:$PATH" HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 \
    HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
    CMAKE_POLICY_VERSION_MINIMUM=3.5 MAKEFLAGS=-j$(nproc) \
    "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-build-isolation --no-deps \
    --require-hashes --requirement requirements/horovod.lock ||
    die "Horovod did not build; the compiler's message is above. Run 'make clean-env' and 'make setup' again once it is mended."

say "3/4 Delta's jars, into pyspark's jars folder"
"$venv/bin/python" requirements/jars.py

say "4/4 sparkrec itself with its native kernel, and the classes that Spark starts with"
package
"$venv/bin/python" -m pip check >/dev/null || die "the installed packages disagree: '$venv/bin/pip check' says which. Run 'make clean-env' and 'make setup' again."
log=$("$venv/bin/python" requirements/classes.py 2>&1) || die "Spark does not start: $log"
touch "$stamp"
say "environment: $venv is ready after $((SECONDS - start)) s"
