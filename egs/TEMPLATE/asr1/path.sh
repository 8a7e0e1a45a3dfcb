# Sourced in a recipe directory (egs/<corpus>/asr1): interpreter, module path and locale of every command.
MAIN_ROOT="$(cd ../../.. && pwd)"
export MAIN_ROOT

# The environment that utils/install.sh made; one that is active already is the user's choice.
if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -f "${MAIN_ROOT}/.venv/bin/activate" ]; then
    # shellcheck disable=SC1091
    . "${MAIN_ROOT}/.venv/bin/activate"
fi

export PATH="${MAIN_ROOT}/utils:${PATH}"
export PYTHONPATH="${MAIN_ROOT}${PYTHONPATH:+:${PYTHONPATH}}"
export PYTHONIOENCODING=UTF-8
# Byte order in sort, and UTF-8 in everything else where the system has such a locale.
if locale -a 2>/dev/null | grep -qi '^c\.utf-\{0,1\}8$'; then
    export LC_ALL=C.UTF-8
else
    export LC_ALL=C
fi
# Threads: the runner shares out the cores of this machine; in a Slurm job they are what was asked for.
if [ -n "${SLURM_JOB_ID:-}" ]; then
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
fi
# Threads that wait for each other sleep: spinning ones take the cores from each other where trainings share them.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
