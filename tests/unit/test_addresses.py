"""Which addresses may be connected to."""

import pytest

from triage.errors import ConfigInvalid
from triage.outbound import Guard
from triage.settings import load_settings

ANYWHERE = Guard()
LISTED = Guard.of(("*.aliyuncs.com", "Hooks.example", "10.1.0.0/16", "fd00::/8", "192.0.2.7"))


@pytest.mark.parametrize(
    "guard", [ANYWHERE, LISTED, Guard.of(("0.0.0.0/0", "::/0", "*"))], ids=["any", "listed", "all"]
)
@pytest.mark.parametrize(
    "address",
    [
        "100.100.100.200",
        "::ffff:100.100.100.200",
        "169.254.169.254",
        "169.254.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "224.0.0.1",
        "0.0.0.0",
        "::",
        "no address",
    ],
)
def test_metadata_and_link_local_addresses_are_never_connected_to(guard, address):
    assert guard.refusal(address)
    assert guard.refusal(address, name="results.aliyuncs.com"), "whatever name resolves to it"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.9.9.9", "100.100.2.136", "203.0.113.5", "2001:db8::1"])
def test_without_a_list_all_others_may_be(address):
    assert ANYWHERE.refusal(address) == ""


@pytest.mark.parametrize(
    ("address", "name", "may"),
    [
        ("203.0.113.5", "1.mns.cn-hangzhou.aliyuncs.com", True),
        ("203.0.113.5", "1.MNS.cn-hangzhou.aliyuncs.com.", True),
        ("203.0.113.5", "hooks.example", True),
        ("203.0.113.5", "aliyuncs.com.evil.example", False),
        ("203.0.113.5", "xhooks.example", False),
        ("203.0.113.5", "", False),
        ("10.1.2.3", "anything.example", True),
        ("10.2.2.3", "anything.example", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("::ffff:10.1.2.3", "", True),
        ("fd12::1", "", True),
        ("127.0.0.1", "localhost", False),
    ],
)
def test_with_a_list_only_what_is_on_it(address, name, may):
    assert (LISTED.refusal(address, name=name) == "") is may


@pytest.mark.parametrize(
    "entry", ["", "https://hooks.example", "hooks.example:443", "10.0.0.0/40", "1.2.3.4.5", "a..b"]
)
def test_what_is_neither_name_nor_network_is_refused(tmp_path, entry):
    (tmp_path / "triage.toml").write_text(f'[outbound]\nallow = ["{entry}"]\n')
    with pytest.raises(ConfigInvalid, match="neither a host name"):
        load_settings(tmp_path / "triage.toml", environ={"HOME": str(tmp_path)})
