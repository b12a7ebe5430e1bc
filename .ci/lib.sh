# Sourced by .ci/run and .ci/nightly: stages, a clean copy of the checkout, the README's commands.
set -euo pipefail
exec </dev/null

export CI=true
export NO_COLOR=1
export PIP_DISABLE_PIP_VERSION_CHECK=1
export PIP_NO_INPUT=1
export PIP_ROOT_USER_ACTION=ignore
export NO_MKDOCS_2_WARNING=1 # an advertisement of the theme
export PYTHONUNBUFFERED=1
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
unset PYTHONDONTWRITEBYTECODE # hundreds of processes that the tests start would each compile the package

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
scratch="$(mktemp -d "${TMPDIR:-/tmp}/reason-ci.XXXXXX")"
export XDG_DATA_HOME="$scratch/data" # not the user's run store, which may have another format
stage="start"
background=""

end_tree() { # end a process and its descendants; `timeout` puts its own into groups of their own
    for child in $(awk -v parent="$1" '$4 == parent { print $1 }' /proc/[0-9]*/stat 2>/dev/null); do
        end_tree "$child"
    done
    kill "$1" 2>/dev/null || true
}

finish() {
    status=$?
    cd /
    [ -z "$background" ] || end_tree "$background"
    rm -rf "$scratch"
    if [ "$status" -eq 0 ]; then
        printf '\n=== all stages passed in %s s\n' "$SECONDS"
    else
        printf '\n=== FAILED in stage "%s" with status %s after %s s\n' "$stage" "$status" "$SECONDS"
    fi
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

begin() {
    stage="$1"
    printf '\n=== %s (at %s s)\n' "$stage" "$SECONDS"
}

show_and_run() {
    printf '$ %s\n' "$1"
    bash -euo pipefail -c "$1"
}

readme_command() { # the code block that follows a marker comment in the README
    awk -v marker="<!-- ci:$1 -->" '
        index($0, marker) { armed = 1; next }
        armed && /^```/   { if (inside) exit; inside = 1; next }
        inside            { print }
    ' "$root/README.md" | grep . || { printf 'README.md has no code block after <!-- ci:%s -->\n' "$1" >&2; return 1; }
}

fresh_copy() { # this checkout without what earlier work left in it
    mkdir -p "$1"
    tar -C "$root" -cf - --exclude='./.git' --exclude='./.venv' --exclude='./venv' --exclude='./build' \
        --exclude='./dist' --exclude='./site' --exclude='*.egg-info' --exclude='__pycache__' \
        --exclude='.mypy_cache' --exclude='.ruff_cache' --exclude='.pytest_cache' --exclude='.hypothesis' \
        --exclude='.import_linter_cache' --exclude='node_modules' . | tar -C "$1" -xf -
}

# uv installs in a fifth of pip's time, with the versions of uv.lock. torch is its CPU build, which on Linux saves CUDA's
# gigabytes: from pip's directory of wheels where that has one, else from PyTorch's index.
install_uv() {
    python3 -m venv "$scratch/uv"
    "$scratch/uv/bin/pip" install --quiet uv
    uv="$scratch/uv/bin/uv"
    locked="$scratch/locked.txt"
    "$uv" export --quiet --frozen --project "$root" --extra all --extra dev --no-emit-project --no-hashes >"$locked"
    wheels="$(python3 -m pip config list | sed -n "s/^[^.]*\.find-links='\(.*\)'$/\1/p" | tail -n 1)"
    cpu_torch="$(find "${wheels:-/nonexistent}" -name 'torch-*+cpu-*.whl' 2>/dev/null | sort -V | tail -n 1)"
    if [ -n "$cpu_torch" ]; then
        torch="--find-links $wheels"
        sed -i "s/^torch==[^ ]*/torch==$(basename "$cpu_torch" | cut -d- -f2)/" "$locked"
    else
        torch="--torch-backend cpu"
    fi
    uv_install="$uv pip install --python .venv/bin/python --constraint $locked $torch"
}

with_uv() { # a README command in which uv does pip's work
    printf '%s' "${1//.venv\/bin\/pip install/$uv_install}"
}

show_machine() {
    begin "machine"
    date -u '+%Y-%m-%dT%H:%M:%SZ'
    uname -srm
    printf 'cores: %s\n' "$(getconf _NPROCESSORS_ONLN)"
    awk '/^(MemTotal|MemAvailable):/ { printf "%s %.1f GiB\n", $1, $2 / 1048576 }' /proc/meminfo 2>/dev/null || true
    df -Ph "$scratch" | awk 'NR == 2 { print "disk free: " $4 }'
    python3 --version
    git -c safe.directory="$root" -C "$root" log -1 --format='commit: %H %s' 2>/dev/null || printf 'commit: none\n'
}

# The clients and the browser that tests use where the machine has them.
install_browser() {
    if ! command -v chromium chromium-browser google-chrome >/dev/null && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            chromium fonts-dejavu-core; } >"$scratch/browser.log" 2>&1 || {
            printf '!!! no browser could be installed: pages are not tested in one\n'
            tail -3 "$scratch/browser.log"
        }
    fi
}

install_ai_sdk() {
    if command -v npm >/dev/null && npm install --silent --no-fund --no-audit --prefix "$scratch/ai_sdk" \
        ai @ai-sdk/openai-compatible zod; then
        export AI_SDK_MODULES="$scratch/ai_sdk"
    else
        printf '!!! no npm, or the AI SDK could not be installed: it is not tested\n'
    fi
}
