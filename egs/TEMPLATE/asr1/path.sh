# Sourced in a recipe directory (egs/<corpus>/asr1): interpreter, module path and locale of every command.
MAIN_ROOT="$(cd ../../.. && pwd)"
export MAIN_ROOT

_activate() {
    # An environment that is active already is the user's choice.
    if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -f "${MAIN_ROOT}/.venv/bin/activate" ]; then
        set +u # some versions of activate read unset variables
        # shellcheck disable=SC1091
        . "${MAIN_ROOT}/.venv/bin/activate"
        set -u
    fi
}

_installed() {
    python3 -c 'import sys
from importlib.util import find_spec
sys.exit(any(find_spec(name) is None for name in ("yaml", "torch", "espnet2")))' 2>/dev/null
}

_activate
if ! _installed; then
    "${MAIN_ROOT}/utils/install.sh"
    _activate
fi
unset -f _activate _installed

export PATH="${MAIN_ROOT}/utils:${PATH}"
export PYTHONPATH="${MAIN_ROOT}${PYTHONPATH:+:${PYTHONPATH}}"
export PYTHONIOENCODING=UTF-8
# Byte order in sort, UTF-8 in everything else where the system has that locale.
if locale -a 2>/dev/null | grep -qix 'c\.utf-\?8'; then
    export LC_ALL=C.UTF-8
else
    export LC_ALL=C
fi
# Threads: the runner shares out the cores of this machine; in a Slurm job they are what was asked for.
if [ -n "${SLURM_JOB_ID:-}" ]; then
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
fi
