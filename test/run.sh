#!/usr/bin/env bash
# Run the whole test suite on a machine that has only Python, pip and a C compiler.
#
#   test/run.sh                     everything, CPU only
#   test/run.sh test/scoring -x     arguments go to pytest
set -euo pipefail
start=$SECONDS
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash utils/install.sh
if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
    . .venv/bin/activate
fi

# The same numbers in every run: fixed hash order, fixed examples of the property tests, and one thread for each
# process, for the models of the tests are too small to gain from more and the recipe tests run jobs side by side.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
export PYTHONHASHSEED=0 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

# A status that is not 0 counts as a failure, 5 ("no test was collected") included.
status=0
if [ $# -eq 0 ]; then set -- test; fi
python -m pytest --hypothesis-seed=0 --durations=10 "$@" || status=$?
echo "test/run.sh: exit status $status after $((SECONDS - start)) s"
exit $status
