#!/usr/bin/env bash
# Runs the program digits: a whole run with its files, and mistakes, which end with one line, status 2 and nothing
# written.
set -euo pipefail
digits=${MIXBIT_BIN:?the folder of programs}/digits
data=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/data/digits.csv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

verdict() {  # OK WHAT
  if (($1)); then passed=$((passed + 1)); else failed=$((failed + 1)); echo "failed: $2"; fi
}

refuses() {  # TEXT ARGUMENT...
  local status=0 text=$1
  shift
  "$digits" "$@" >"$work/stdout" 2>"$work/stderr" || status=$?
  local ok=0
  if ((status == 2)) && (($(wc -l <"$work/stderr") == 1)) && grep -qF -- "$text" "$work/stderr" &&
      [[ ! -s $work/stdout && ! -e $work/none ]]; then ok=1; fi
  verdict $ok "digits $*: status $status: $(cat "$work/stderr")"
}

refuses "see digits --help"
refuses "unknown option '--bogus'" --bogus 1
refuses "none.csv: cannot be read" --data "$work/none.csv" --out "$work/none"
printf 'label\n' >"$work/broken.csv"
refuses "broken.csv:1: " --data "$work/broken.csv" --out "$work/none"
refuses "FP9_DEFAULT_CFG" --data "$data" --out "$work/none" --formats FP9_DEFAULT_CFG
refuses "effective bits: 'six'" --data "$data" --out "$work/none" --effective-bits six
refuses "cannot be met" --data "$data" --out "$work/none" --effective-bits 3

"$digits" --data "$data" --out "$work/out" --epochs 3 >"$work/stdout"
for file in candidate_stats.json manifest.json plan.json layer-sensitivity-report.md model.safetensors; do
  verdict $(($([[ -s $work/out/$file ]]; echo $?) == 0)) "$file is written"
done
verdict $(($(grep -cE '^(conv1|conv2|fc1|fc2) ' "$work/stdout") == 4)) "a line for each layer"
verdict $(($(grep -cE '^test accuracy 9[0-9]\.[0-9]+ % -> 9' "$work/stdout") == 1)) "the accuracy is shown"
"$digits" --data "$data" --out "$work/again" --epochs 3 >/dev/null
verdict $(($(diff -r "$work/out" "$work/again" >/dev/null; echo $?) == 0)) "a second run writes the same bytes"

echo "$passed passed, $failed failed, 0 skipped"
((failed == 0))
