# ./run-demo and ./run-tests source this file: it makes a virtual environment in .venv when none is there or up to date.
# Usage: ensure_venv EXTRAS, e.g. ensure_venv "" or ensure_venv "[dev]". PYTHON chooses the interpreter (>= 3.10).
ensure_venv() {
  local extras=$1 python=${PYTHON:-python3} stamp
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    { echo "sporeprint needs Python 3.10 or newer; $python is older. Set PYTHON=/path/to/python3" >&2; exit 1; }
  if ! .venv/bin/python -m pip --version > /dev/null 2>&1; then # missing, or incomplete
    "$python" -m venv --clear .venv ||
      { echo "could not make .venv (Debian: apt install python3-venv)" >&2; exit 1; }
  fi
  stamp="$(cksum < pyproject.toml) $extras" # without extras it is a prefix of every stamp, so any stamp matches
  if ! grep -qF "$stamp" .venv/installed 2>/dev/null; then
    echo "installing sporeprint$extras into .venv (PyTorch is large: this takes minutes the first time) ..." >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".$extras" >&2
    echo "$stamp" >> .venv/installed
  fi
}
