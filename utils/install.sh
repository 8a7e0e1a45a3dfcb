#!/usr/bin/env bash
# Make this checkout runnable: torch, ESPnet and everything the recipes and tests use.
#
#   utils/install.sh                       the active virtualenv or conda environment, or else .venv in this checkout
#   PYTHON=python3.12 utils/install.sh     the interpreter to make .venv from (3.11, 3.12 or 3.13)
#
# An installed torch is never replaced. When nothing is missing the call takes a fraction of a second, so that run.sh
# and test/run.sh make it every time. What is installed, and in which order: utils/install_packages.py.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
    echo "error: $*" >&2
    exit 2
}

starts() { "$1" -c '' 2>/dev/null; }

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

version_of() { "$1" -c 'import platform; print(platform.python_version())'; }

find_python() { # the first interpreter that has a known set of packages
    local candidate
    for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.13 python}; do
        if supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "${PYTHON:-python3}: Python 3.11, 3.12 or 3.13 is needed, and none was found." \
        "Install one, and name it: PYTHON=/path/to/python3.12 utils/install.sh"
}

make_venv() {
    local python
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python has no venv module. Install it (Debian: apt install python3-venv)" \
            "or activate an environment of your own first."
    echo "making $root/.venv with Python $(version_of "$python")"
    # --clear: what is there does not start, for it was cut off while it was made, or its interpreter is gone.
    "$python" -m venv --clear "$root/.venv" >&2 || fail "$python -m venv $root/.venv failed, see above."
}

case ${1:-} in
    "") ;;
    -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *) fail "utils/install.sh: unknown argument $1; it takes none (see --help)." ;;
esac

environment=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
locked=${environment:-$root}
environment=${environment:-$root/.venv}
[ -d "$locked" ] || fail "the active environment $locked does not exist. Deactivate it, or make it again."

# Two calls at once (run.sh here, the tests there) must not install into each other.
if command -v flock >/dev/null; then
    exec 9<"$locked"
    if ! flock -n 9; then
        echo "waiting for another utils/install.sh to finish"
        flock 9 || true # a file system without locks: go on alone
    fi
fi

if ! starts "$environment/bin/python"; then
    [ "$locked" = "$root" ] || fail "$environment/bin/python does not start. Deactivate this environment, or make it again."
    make_venv
fi
supported "$environment/bin/python" ||
    fail "$environment has Python $(version_of "$environment/bin/python"); 3.11, 3.12 or 3.13 is needed." \
        "Deactivate or remove it, then call utils/install.sh again."

# -I: a PYTHONPATH of the caller must not make packages look installed that are not in this environment.
exec "$environment/bin/python" -I "$root/utils/install_packages.py" "$environment"
