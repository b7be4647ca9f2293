# For scripts that count what they check, in $passed and $failed; a failure says what it is of.
# shellcheck shell=bash disable=SC2034
passed=0 failed=0

check() {  # NAME CONDITION...
  local name=$1
  shift
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $name"; fi
}
