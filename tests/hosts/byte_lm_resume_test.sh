#!/usr/bin/env bash
# byte_lm --checkpoint: a search that is killed (SIGKILL) at many moments goes on to the same files, byte for byte; of
# another search it is refused; a full disk loses nothing. Ends with `N passed, N failed`.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/support/check.sh
bin=${MIXBIT_BIN:-build/ci/bin}/byte_lm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

text=$work/text
cat LICENSE LICENSE LICENSE LICENSE LICENSE >"$text"
cat >"$work/windows.json" <<'END'
{"window": 129, "calibration_windows": [[0]], "score_windows": [[0, 129, 258], [1000, 1129, 1258], [2000, 2129, 2258]],
 "validation_windows": [4000, 5000, 6000, 7000]}
END
search=(--model data/byte-lm --text "$text" --windows "$work/windows.json" --calib-steps 2 --score-steps 3)
search+=(--effective-bits 6.0 --formats "FP8_DEFAULT_CFG,INT8_DEFAULT_CFG,INT4_BLOCKWISE_WEIGHT_ONLY_CFG")
kept=(--checkpoint "$work/kept")

begun=$(date +%s%N)
"$bin" "${search[@]}" --out "$work/whole" >"$work/log" 2>&1
check "a search succeeds" test $? -eq 0
whole_ms=$((($(date +%s%N) - begun) / 1000000))

# killed after more and more time, each run going on with what the last one kept: 20 kills at most
kills=0
for ((k = 1; k <= 20; ++k)); do
  after=$(printf '%d.%03d' $((whole_ms * k / 12000)) $((whole_ms * k / 12 % 1000)))
  (timeout -s KILL "$after" "$bin" "${search[@]}" "${kept[@]}" --out "$work/killed" >/dev/null; exit $?) 2>/dev/null
  status=$?
  if ((status == 0)); then break; fi
  check "run $k: killed, not $status" test $status -eq 137
  kills=$((kills + 1))
done
check "runs were killed" test $kills -gt 3
if ((kills == 20)); then "$bin" "${search[@]}" "${kept[@]}" --out "$work/resumed" >/dev/null 2>&1; fi
"$bin" "${search[@]}" "${kept[@]}" --out "$work/resumed" >/dev/null 2>"$work/progress"
check "the last one comes to its end" test $? -eq 0
no_steps() { ! grep -qE '^(calibrate|score)' "$work/progress"; }
check "with all steps there it runs none" no_steps
check "to the same bytes" diff -r "$work/whole" "$work/resumed"
check "no file is left half" test -z "$(find "$work/kept" -name '.*')"

# another budget and another way to count it choose anew from the same scores
"$bin" "${search[@]}" "${kept[@]}" --out "$work/resumed" --cost modelopt >/dev/null 2>"$work/progress"
check "another cost runs no step" no_steps
"$bin" "${search[@]}" --out "$work/whole" --cost modelopt >/dev/null 2>&1
check "and gives what a search gives" diff -r "$work/whole" "$work/resumed"

refused() {  # WORD ARGUMENT...: exit 2, one line that holds WORD
  local word=$1 status
  shift
  "$bin" "$@" --out "$work/x" >/dev/null 2>"$work/err" </dev/null
  status=$?
  check "refused ($word): exit $status" test $status -eq 2
  check "refused ($word): one line that names it, not '$(cat "$work/err")'" \
    test "$(grep -cF -- "$word" "$work/err")" -eq 1 -a "$(wc -l <"$work/err")" -eq 1
  check "refused ($word): writes nothing" test ! -e "$work/x"
}
before=$(cd "$work/kept" && cat ./* | cksum)
refused "options.scoring steps is \"1\", and was \"3\"" "${search[@]/#3/1}" "${kept[@]}"
sed 's/1129/1130/' "$work/windows.json" >"$work/others.json"
refused "host.calibration windows is" "${search[@]/windows.json/others.json}" "${kept[@]}"
refused "options.method is \"kl_div\"" "${search[@]}" "${kept[@]}" --method kl_div
refused "groups" "${search[@]}" "${kept[@]}" --disabled-layers '*lm_head*'
cp -r data/byte-lm "$work/model"
chmod -R u+w "$work/model"
sed -i 's/"rms_norm_eps": 1e-05/"rms_norm_eps": 2e-05/' "$work/model/config.json"
refused "host.config.json is" "${search[@]/data\/byte-lm/$work/model}" "${kept[@]}"
cp data/byte-lm/config.json "$work/model"
printf '\0\0\x80\x3f' | dd of="$work/model/model.safetensors" bs=1 conv=notrunc status=none \
  seek=$(($(stat -c %s "$work/model/model.safetensors") - 4))
refused "is the checkpoint of another search" "${search[@]/data\/byte-lm/$work/model}" "${kept[@]}"
refused "lie in one another" "${search[@]}" --checkpoint data/byte-lm/run
refused "README.md' is no folder" "${search[@]}" --checkpoint README.md
refused "--checkpoint belongs to a search" --model data/byte-lm --text "$text" --preset FP8_DEFAULT_CFG "${kept[@]}"
check "what was refused is as it was" test "$(cd "$work/kept" && cat ./* | cksum)" = "$before"

# a refinement is kept too: killed within it, it goes on to the same bytes
refine=("${search[@]}" --refine 2)
begun=$(date +%s%N)
"$bin" "${refine[@]}" "${kept[@]}" --out "$work/refined" >"$work/log" 2>/dev/null
check "a refinement on the kept scores succeeds" test $? -eq 0
refine_ms=$((($(date +%s%N) - begun) / 1000000))
rm "$work"/kept/part-*
kills=0
for ((k = 2; k <= 7; ++k)); do
  after=$(printf '%d.%03d' $((refine_ms * k / 8000)) $((refine_ms * k / 8 % 1000)))
  (timeout -s KILL "$after" "$bin" "${refine[@]}" "${kept[@]}" --out "$work/killed" >/dev/null 2>&1; exit $?) 2>/dev/null
  if (($? == 137)); then kills=$((kills + 1)); fi
done
check "refinements were killed" test $kills -gt 1
"$bin" "${refine[@]}" "${kept[@]}" --out "$work/again" >/dev/null 2>&1
check "a killed refinement goes on to the same bytes" diff -r "$work/refined" "$work/again"
"$bin" "${refine[@]}" "${kept[@]}" --out "$work/again" >/dev/null 2>"$work/progress"
check "and what is done of it is not run again" test "$(grep -c '^refine' "$work/progress")" -eq 0
rm "$work"/kept/part-*

# a disk that is full from the second file on
(ulimit -f 8; trap '' XFSZ; "$bin" "${search[@]}" --checkpoint "$work/full" --out "$work/y" >/dev/null 2>"$work/err")
check "a full disk: exit 2" test $? -eq 2
check "a full disk: named, not '$(tail -n 1 "$work/err")'" grep -q "byte_lm: cannot write '$work/full/" "$work/err"
check "a full disk: no file is half there" test -z "$(find "$work/full" -name '.*' -o -size -1c)"
"$bin" "${search[@]}" --cost modelopt --checkpoint "$work/full" --out "$work/y" >/dev/null 2>&1
check "with room again it goes on to the same bytes" diff -r "$work/whole" "$work/y"

echo "$passed passed, $failed failed"
((failed == 0))
