#!/usr/bin/env bash
# joblib 1.6.0: joblib.hash of an OrderedDict that holds something which cannot be
# pickled leaves out, without an error, that item and all whose keys sort after it. Two
# such dicts hash alike whatever else they hold, and joblib.Memory gives one the result
# of the other. A plain dict with the same items raises TypeError, as one would expect.
#
# Seen on 2026-11-27 with Python 3.11 (joblib's hash sorts the items of a dict; for an
# OrderedDict they come as an iterator, which is used up when the first attempt fails):
#
#   OrderedDict of a lock and 1 hashes like one of a lock and 2: True
#   OrderedDict of a lock and 1 hashes like one of a lock and other keys: True
#   dict of a lock: TypeError
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet joblib==1.6.0
"$work/venv/bin/python" - <<'PYTHON' | tee "$work/seen"
from collections import OrderedDict
from threading import Lock

import joblib


def with_lock(value):
    return OrderedDict(lock=Lock(), value=value)


print("joblib", joblib.__version__)
print(
    "OrderedDict of a lock and 1 hashes like one of a lock and 2:",
    joblib.hash(with_lock(1)) == joblib.hash(with_lock(2)),
)
print(
    "OrderedDict of a lock and 1 hashes like one of a lock and other keys:",
    joblib.hash(with_lock(1)) == joblib.hash(OrderedDict(lock=Lock(), x="y", z=3)),
)
try:
    print("dict of a lock:", joblib.hash({"lock": Lock()}))
except TypeError as error:
    print("dict of a lock:", type(error).__name__)
PYTHON
diff "$work/seen" - <<'EXPECTED'
joblib 1.6.0
OrderedDict of a lock and 1 hashes like one of a lock and 2: True
OrderedDict of a lock and 1 hashes like one of a lock and other keys: True
dict of a lock: TypeError
EXPECTED
echo "as described"
