"""Run as a program: loads files under an audit hook and prints, as JSON, what happened.

``python audited.py FILE...`` loads each file with ``load_weights`` and ``read_tensor_file``;
``python audited.py --control FILE`` unpickles one with the standard library instead, to show
that the hook sees what it should.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable

from fastglow.checkpoint import load_weights, read_tensor_file

EVENTS: list[list[str]] = []
LISTENING = False


def listen(event: str, args: tuple[object, ...]) -> None:
    if LISTENING:
        EVENTS.append([event, *(str(arg)[:200] for arg in args[:2])])


def watched(load: Callable[[], object]) -> dict[str, object]:
    """What came out of ``load``, and the events meanwhile."""
    global LISTENING
    EVENTS.clear()
    LISTENING = True
    try:
        load()
        result = ["loaded", ""]
    except BaseException as error:
        result = [type(error).__name__, str(error)]
    LISTENING = False
    return {"result": result, "events": list(EVENTS)}


def main() -> None:
    control = sys.argv[1] == "--control"
    files = sys.argv[2:] if control else sys.argv[1:]
    # Codecs are imported at first use, by whoever comes first: not the file's doing.
    b"x".decode("raw-unicode-escape")
    b"x".decode("latin-1").encode("unicode_escape")
    sys.addaudithook(listen)
    report = {}
    for file in files:
        if control:
            with open(file, "rb") as stream:
                data = stream.read()
            report[file] = [watched(lambda data=data: pickle.loads(data))]
        else:
            report[file] = [
                watched(lambda file=file: load_weights(file)),
                watched(lambda file=file: read_tensor_file(file)),
            ]
    print(json.dumps(report))


if __name__ == "__main__":
    main()
