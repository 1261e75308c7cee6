#!/bin/sh
# Functions that must not be used: raw heap and unbounded strings in src/, exits and prints in the library, getenv outside tools.
set -eu
cd "$(dirname "$0")/.."
bad=0
hits=$(git ls-files 'src/*.[ch]' | grep -v '^src/base/mem.c$' | xargs grep -nE '(^|[^_a-zA-Z0-9.>])(malloc|calloc|realloc|free|strcpy|strcat|sprintf|gets|atoi|atol|strtok|rand|alloca|setjmp|longjmp|exit|abort|printf|puts|getenv)\(' | grep -vE ':[0-9]+: *(\*|/\*|//)|free\([a-z]+\); /\* jansson.s own \*/' || true)
[ -z "$hits" ] || { echo "banned functions in src/:"; echo "$hits"; bad=1; }
hits=$(git grep -nIE '[[:blank:]]+$' -- '*.c' '*.h' '*.sh' '*.md' '*.cmake' '*.txt' ':!tests/golden' ':!tests/graph' || true)
[ -z "$hits" ] || { echo "trailing blanks:"; echo "$hits" | head; bad=1; }
[ $bad -eq 0 ] && echo "banned: ok"
exit $bad
