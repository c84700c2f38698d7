"""Writes what the fuzzers start from into two folders, ``rules`` and ``envelope``, below the one that is named."""

import base64
import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import hostile
import make

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "data" / "fingerprints" / "corpus.jsonl"

if __name__ == "__main__":
    seeds = Path(sys.argv[1])
    for name in ("rules", "envelope"):
        (seeds / name).mkdir(parents=True, exist_ok=True)
    files = [
        *ROOT.glob("rules/*.yaml"),
        *ROOT.glob("tests/data/lint/*.yaml"),
        *ROOT.glob("triage/emulator/*rules*.yaml"),
    ]
    for number, file in enumerate(files):
        (seeds / "rules" / f"{number}").write_bytes(b"\0" + file.read_bytes())
    good = [
        make.body(),
        base64.b64encode(make.body()),
        *(file.read_bytes() for file in ROOT.glob("tests/data/samples/*.*")),
    ]
    for number, body in enumerate([*good, *hostile.BODIES.values()]):
        if len(body) < 10_000:
            (seeds / "envelope" / f"{number}").write_bytes(b"\0" + body)
    for number, line in enumerate(CORPUS.read_text().splitlines()[::6]):
        for kind in (3, 5):  # as the function's answer, as its error message
            (seeds / "envelope" / f"{kind}-{number}").write_bytes(
                bytes([4 * kind]) + json.loads(line)["payload"].encode()
            )
