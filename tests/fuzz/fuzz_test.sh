#!/usr/bin/env bash
# The readers of files, a bounded run of each fuzz target: scripts/fuzz says more.
exec "$(dirname "${BASH_SOURCE[0]}")/../../scripts/fuzz"
