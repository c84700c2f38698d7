"""Sealed bodies: opened by the right key, by no other, and never mistaken for one that was stored as it came."""

import base64
import pickle

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from triage.errors import ConfigInvalid, Misconfigured
from triage.sealing import Seal
from triage.settings import load_settings

OLD, NEW = bytes(range(32)), bytes(32)
NONE, ONE, BOTH = Seal(), Seal((OLD,)), Seal((NEW, OLD))
# Bodies may begin with anything, also with what sealed ones begin with.
bodies = st.binary(min_size=1) | st.binary().map(lambda rest: NONE.sealed(ONE.sealed(b"x"))[:8] + rest)


@given(bodies, st.sampled_from([NONE, ONE, BOTH]))
def test_what_was_sealed_is_opened_byte_for_byte(body, seal):
    assert seal.opened(seal.sealed(body)) == body


@given(bodies)
def test_what_was_stored_without_a_key_is_opened_with_one(body):
    assert BOTH.opened(NONE.sealed(body)) == body


@given(st.binary(min_size=16))
def test_a_sealed_body_shows_nothing_and_looks_different_each_time(body):
    assert body not in ONE.sealed(body)
    assert ONE.sealed(body) != ONE.sealed(body)


def test_an_empty_body_stays_empty():
    assert ONE.sealed(b"") == ONE.opened(b"") == b""


def test_a_new_key_opens_what_the_one_below_it_has_sealed_and_seals_for_itself():
    assert BOTH.opened(ONE.sealed(b"body")) == b"body"
    assert Seal((NEW,)).opened(BOTH.sealed(b"body")) == b"body"
    with pytest.raises(Misconfigured, match=r"the key [0-9a-f]{8} is not in encryption\.keys"):
        ONE.opened(BOTH.sealed(b"body"))


@given(st.binary(min_size=1), st.data())
def test_a_changed_body_does_not_open(body, data):
    sealed = bytearray(ONE.sealed(body))
    place = data.draw(st.integers(12, len(sealed) - 1))
    sealed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidTag):
        ONE.opened(bytes(sealed))


def test_it_goes_to_another_process_and_tells_nobody_its_keys():
    assert pickle.loads(pickle.dumps(BOTH)) == BOTH
    assert pickle.loads(pickle.dumps(BOTH)).opened(ONE.sealed(b"body")) == b"body"
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
