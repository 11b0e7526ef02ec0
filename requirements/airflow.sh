#!/usr/bin/env bash
# Makes an Airflow environment in $1 and runs the DAG's tests in it: imported, in order, and one real run.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv-airflow}
bash requirements/environment.sh "$venv" requirements/airflow.lock "Airflow's environment (about a minute, 700 MB)"
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
export AIRFLOW_HOME="$home" AIRFLOW__CORE__DAGS_FOLDER="$PWD/dags" AIRFLOW__CORE__LOAD_EXAMPLES=False
export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="sqlite:///$home/airflow.db"
export AIRFLOW_CONN_SPARK_DEFAULT='{"conn_type":"spark","host":"local[2]","extra":{"deploy-mode":"client"}}'
# spark-submit comes from the project's environment; the operators give its Python to the jobs.
export PATH="$PWD/$venv/bin:$PWD/.venv/bin:$PATH" SPARKREC_PYTHON="$PWD/.venv/bin/python" SPARKREC_HOME="$PWD"
python -m pytest -q -p no:cacheprovider --confcutdir=tests/airflow --rootdir=tests/airflow tests/airflow
