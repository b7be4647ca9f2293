# Reads the log of `ctest --verbose`; prints "PASSED FAILED SKIPPED", appends `skipped: ...` lines
# to `reasons` and the ends of failed tests' output to `details`.
# In `mode` cases a test counts what its own closing line says: doctest's ("[doctest] test cases: ...") or
# "N passed, N failed, N skipped"; without one, it counts as one. A line "skipped: WHAT: WHY" inside a doctest program
# turns one passed case into a skipped one. In `mode` tests each test counts as one.
function number(text, word,   n) {  # the number before `word`
  if (!match(text, "[0-9]+ " word)) return 0
  n = substr(text, RSTART, RLENGTH)
  return n + 0
}

/^[0-9]+: / {
  id = $1 + 0
  text = $0
  gsub(/\033\[[0-9;]*m/, "", text)
  sub(/^[0-9]+: /, "", text)
  tail[id, lines[id]++ % 40] = text
  if (text ~ /^\[doctest\] test cases:/) {
    closed[id] = "doctest"
    p[id] += number(text, "passed"); f[id] += number(text, "failed"); s[id] += number(text, "skipped")
  } else if (text ~ /^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$/) {
    closed[id] = "plain"
    p[id] = number(text, "passed"); f[id] = number(text, "failed"); s[id] = number(text, "skipped")
  } else if (text ~ /^skipped: /) {
    ++skips[id]
    print substr(text, 10) >> reasons
  }
}

/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: / {
  match($0, /#[0-9]+:/)
  id = substr($0, RSTART + 1, RLENGTH - 2) + 0
  outcome = $0 ~ / Passed +[0-9.]+ sec/ ? "p" : $0 ~ /\*\*\*Skipped/ ? "s" : "f"
  if (outcome == "f") {
    print "---- " $0 >> details
    for (i = lines[id] > 40 ? lines[id] - 40 : 0; i < lines[id]; ++i) print tail[id, i % 40] >> details
  }
  if (mode == "tests" || !(id in closed)) {
    total[outcome]++
  } else {
    moved = closed[id] == "doctest" ? skips[id] : 0
    if (outcome == "f" && f[id] == 0) f[id] = 1  # it crashed, or failed outside its cases
    total["p"] += p[id] - moved; total["f"] += f[id]; total["s"] += s[id] + moved
  }
  ++tests
}

END {
  if (tests == 0) total["f"] = 1  # CTest found nothing to run
  print total["p"] + 0, total["f"] + 0, total["s"] + 0
}
