"""``triage run`` against SMQ and FC in another process: a full queue is drained without loss or repetition."""

import os
import signal
import time

from mns.account import Account
from mns.queue import Message
from processes import KEY_ID, SECRET, emulating
from workload import RULES, SCENARIO, Workload

SIZE = int(os.environ.get("TRIAGE_ACCEPTANCE_MESSAGES", "2000"))


def test_a_full_queue_is_drained_without_loss_or_repetition(tmp_path, record_property):
    load, state = Workload(SIZE), tmp_path / "state"
    (tmp_path / "rules.yaml").write_text(RULES)
    before, by_sdk = load.bodies[:-40], load.bodies[-40:]
    with emulating(tmp_path, SCENARIO, bodies=before) as emulation:
        began = time.monotonic()
        with emulation.daemon(state, TRIAGE_RULES=str(tmp_path / "rules.yaml")) as running:
            send(emulation.url, by_sdk)
            running.until(lambda: load.is_done(state), within=30 + SIZE / 100, why="was all done")
            took = time.monotonic() - began
            assert load.check(emulation, running, state) == 0
            assert running.stop(signal.SIGTERM) == 0
    print(f"{SIZE} messages, {load.reruns.total()} re-runs and their results: {took:.1f} s")


def send(url, bodies):
    """As another program does, with the official SDK; every other one base64 encoded."""
    account = Account(url, KEY_ID, SECRET)
    queue = account.get_queue("results")
    for first in range(0, len(bodies), 8):
        queue.set_encoding(first % 16 == 0)
        queue.batch_send_message([Message(text.decode()) for text in bodies[first : first + 8]])
    account.mns_client.close_connection()
