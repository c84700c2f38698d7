"""What masking costs, for messages that were not seen before: `python benchmarks/fingerprint.py`."""

import json
import time
from pathlib import Path

from triage.envelope import parse_error
from triage.fingerprint import fingerprint, mask

CORPUS = Path(__file__).parent.parent / "tests" / "data" / "fingerprints" / "corpus.jsonl"
DENSE = (
    "RequestId: {0:016x} failed to load order {0} from 'basket' at 10.0.{1}.7:3306 after {1}ms: connection reset by "
    "peer while reading response headers, retry number {1} gave up (maxMemoryUsage: {1}.5MB) in this run"
)
PLAIN = (
    "Task {0} could not be finished because the service behind it did not answer in time; the connection was closed by "
    "the other side while the response was being read, and no further attempt was made within {1} ms"
)


def best(messages: list[str]) -> float:
    """Microseconds for 200 characters, of the quickest of ten rounds."""
    found = float("inf")
    for _ in range(10):
        mask.__globals__["_masked"].cache_clear()
        start = time.perf_counter()
        for message in messages:
            mask(message)
        found = min(found, time.perf_counter() - start)
    return found * 1e6 * 200 / sum(map(len, messages))


def main() -> None:
    payloads = [json.loads(line)["payload"] for line in CORPUS.read_text().splitlines()]
    corpus = [
        error.message for error in (parse_error(payload, function_error="") for payload in payloads) if error.message
    ]
    dense = [DENSE.format(number * 7919, number % 256)[:200] for number in range(2000)]
    plain = [PLAIN.format(number * 7919, number)[:200] for number in range(2000)]
    print(f"two numbers, new {best(plain):6.1f} µs for 200 characters")
    print(f"six numbers, new {best(dense):6.1f} µs for 200 characters")
    average = sum(map(len, corpus)) / len(corpus)
    print(f"corpus, new      {best(corpus):6.1f} µs for 200 characters, in messages of {average:.0f}")
    start = time.perf_counter()
    for _ in range(20_000):
        fingerprint(function="f", condition="c", error_type="T", message=dense[0])
    print(f"seen before      {(time.perf_counter() - start) / 20_000 * 1e6:6.1f} µs, the whole fingerprint")


if __name__ == "__main__":
    main()
