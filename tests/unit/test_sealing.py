"""Sealed bodies: opened by the right key, by no other, and never mistaken for one that was stored as it came."""

import base64
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.errors import ConfigInvalid, Misconfigured, SealBroken
from triage.sealing import Seal
from triage.settings import load_settings

OLD, NEW = bytes(range(32)), bytes(32)
ROW = "envelopes r-1"
OLD_SEAL = bytes.fromhex("007365616c6564006723812153a716eaf9591cd757bb34f8fc868d468358b0777ca8c0ec2a2f399a978a3f9a")
"""Made by the first version."""
NONE, ONE, BOTH = Seal(), Seal((OLD,)), Seal((NEW, OLD))
# Bodies may begin with anything, also with what sealed ones begin with.
bodies = st.binary(min_size=1) | st.binary().map(lambda rest: NONE.sealed(ROW, ONE.sealed(ROW, b"x"))[:8] + rest)


@given(bodies, st.sampled_from([NONE, ONE, BOTH]))
def test_what_was_sealed_is_opened_byte_for_byte(body, seal):
    assert seal.opened(ROW, seal.sealed(ROW, body)) == body


@given(bodies)
def test_what_was_stored_without_a_key_is_opened_with_one(body):
    assert BOTH.opened(ROW, NONE.sealed(ROW, body)) == body


@given(st.binary(min_size=16))
def test_a_sealed_body_shows_nothing_and_looks_different_each_time(body):
    assert body not in ONE.sealed(ROW, body)
    assert ONE.sealed(ROW, body) != ONE.sealed(ROW, body)


def test_an_empty_body_stays_empty():
    assert ONE.sealed(ROW, b"") == ONE.opened(ROW, b"") == b""


def test_a_new_key_opens_what_the_one_below_it_has_sealed_and_seals_for_itself():
    assert BOTH.opened(ROW, ONE.sealed(ROW, b"body")) == b"body"
    assert Seal((NEW,)).opened(ROW, BOTH.sealed(ROW, b"body")) == b"body"
    with pytest.raises(Misconfigured, match=r"the key [0-9a-f]{8} is not in encryption\.keys"):
        ONE.opened(ROW, BOTH.sealed(ROW, b"body"))


@given(st.binary(min_size=1), st.data())
def test_a_changed_body_does_not_open(body, data):
    sealed = bytearray(ONE.sealed(ROW, body))
    place = data.draw(st.integers(16, len(sealed) - 1))
    sealed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealBroken):
        ONE.opened(ROW, bytes(sealed))


@given(st.binary(min_size=1))
def test_a_body_in_the_place_of_another_does_not_open(body):
    with pytest.raises(SealBroken, match="in the place of another"):
        BOTH.opened("envelopes r-2", BOTH.sealed(ROW, body))


@given(st.binary(min_size=1), st.binary(max_size=40))
def test_a_body_that_was_cut_off_does_not_open(body, rest):
    with pytest.raises(SealBroken):
        ONE.opened(ROW, ONE.sealed(ROW, body)[: 20 + len(rest)][:-1])


def test_what_was_sealed_before_seals_were_bound_to_rows_is_opened():
    assert ONE.opened(ROW, OLD_SEAL) == b"body"
    with pytest.raises(SealBroken):
        ONE.opened(ROW, OLD_SEAL[:-1] + b"\0")


def test_it_goes_to_another_process_and_tells_nobody_its_keys():
    assert pickle.loads(pickle.dumps(BOTH)) == BOTH
    assert pickle.loads(pickle.dumps(BOTH)).opened(ROW, ONE.sealed(ROW, b"body")) == b"body"
    assert "\\x" not in repr(ONE)
    assert len(set(BOTH.names)) == 2


@pytest.mark.parametrize("text", ["", "short", base64.b64encode(b"x" * 31).decode(), "!" * 44])
def test_what_is_no_key_is_refused_and_not_shown(tmp_path, text):
    (tmp_path / "encryption__keys").write_text(f"{base64.b64encode(OLD).decode()}\n{text}x\n")
    with pytest.raises(ConfigInvalid, match="key 2 is not 32 bytes in base64") as error:
        load_settings(None, environ={"HOME": str(tmp_path), "TRIAGE_SECRETS_DIR": str(tmp_path)})
    assert f"{text}x" not in str(error.value)


def test_keys_come_from_a_secret_file_the_newest_first(tmp_path):
    lines = [base64.b64encode(key).decode() for key in (NEW, OLD)]
    (tmp_path / "encryption__keys").write_text("\n".join(lines))
    settings = load_settings(None, environ={"HOME": str(tmp_path), "TRIAGE_SECRETS_DIR": str(tmp_path)})
    assert settings.encryption.seal == BOTH
    assert lines[0] not in repr(settings)
