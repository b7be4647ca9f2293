#!/usr/bin/env bash
# The list of mutations keeps up with the sources. Making them takes minutes and is done by hand: docs/testing.md.
exec "$(dirname "${BASH_SOURCE[0]}")/../../scripts/check-mutations" --list-only
