"""The service under a real systemd, which is process 1 of a Debian in a folder; and what systemd says of the units."""

import json

import pytest
from machines import block, booted, checkout, debian, needs, wheelhouse
from make import body

pytestmark = [needs("mmdebstrap", "systemd-nspawn", "nsenter"), pytest.mark.timeout(900)]

RULES = "version: 1\nrules:\n  - {id: everything, alert: {to: default, group_wait: 0s}}\n"


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Debian 13 with triage installed as systemd/README.md says."""
    folder = tmp_path_factory.mktemp("machine")
    wheels = wheelhouse(folder / "wheels", "3.13")
    root = debian(folder / "root", "trixie", "systemd", "systemd-sysv", "dbus", "python3", "python3-venv")
    checkout(root / "root" / "triage")
    with booted(root, f"--bind-ro={wheels}:/wheels") as found:
        install = block("systemd/README.md", "install")
        print(found.sh(f"cd /root/triage\n{install}", PIP_NO_INDEX="1", PIP_FIND_LINKS="/wheels"))
        yield found


def until(machine, script):
    """Wait until a script succeeds in the machine."""
    return machine.sh(f"for i in $(seq 300); do if ( {script} ); then exit 0; fi; sleep 0.1; done; exit 1")


def test_systemd_finds_nothing_wrong_and_little_exposed(machine):
    units = "/etc/systemd/system/triage.service triage@media.service"
    assert machine.sh(f"systemd-analyze verify --man=no {units}") == ""
    for unit in ("triage.service", "triage@.service"):
        said = machine.sh(
            f"systemd-analyze security --offline=true --threshold=15 --no-pager /etc/systemd/system/{unit}"
        )
        print(said.splitlines()[-1])


def test_it_was_ready_says_how_it_gets_on_and_works(machine):
    assert machine.show("triage", "ActiveState") == "active"
    assert machine.show("triage", "Type") == "notify-reload"
    assert "all is well" in machine.show("triage", "StatusText")
    assert machine.show("triage", "WatchdogTimestampMonotonic") != "0"
    (machine.root / "root" / "one.json").write_bytes(body("r-1"))
    machine.sh("TRIAGE_STATE_DIR=/var/lib/triage /opt/triage/bin/triage queue send /root/one.json")
    until(machine, "TRIAGE_STATE_DIR=/var/lib/triage /opt/triage/bin/triage status | grep -q 'decided *1'")
    user = machine.sh("ps -o user:32= -C triage || stat -c %U /proc/$(systemctl show -P MainPID triage)").split()
    assert user != ["root"]


def test_a_reload_takes_good_rules_and_fails_on_bad_ones(machine):
    machine.sh("mkdir -p /etc/triage/rules; sed -i 's/^# rules = /rules = /' /etc/triage/triage.toml")
    (machine.root / "etc/triage/rules/all.yaml").write_text(RULES)
    machine.sh("systemctl restart triage")
    before = machine.show("triage", "StatusText").partition("rules ")[2][:12]
    (machine.root / "etc/triage/rules/all.yaml").write_text(RULES.replace("everything", "all-of-it"))
    machine.sh("systemctl reload triage")
    assert machine.show("triage", "ActiveState") == "active"
    after = machine.show("triage", "StatusText").partition("rules ")[2][:12]
    assert after != before
    (machine.root / "etc/triage/rules/all.yaml").write_text("version: 1\nrules: [\n")
    machine.sh("systemctl reload triage", code=1)
    until(machine, "systemctl show -P StatusText triage | grep -q 'the rule files are not used, mistakes: 1'")
    assert after in machine.show("triage", "StatusText")
    machine.sh("systemctl restart triage")  # with the last good rules
    until(machine, "systemctl show -P StatusText triage | grep -q 'the rule files are not used, mistakes: 1'")
    assert after in machine.show("triage", "StatusText")
    (machine.root / "etc/triage/rules/all.yaml").write_text(RULES)
    machine.sh("systemctl reload triage")
    assert before in machine.show("triage", "StatusText")


def test_it_is_started_again_when_killed_or_hung_and_not_when_misconfigured(machine):
    machine.sh("mkdir -p /run/systemd/system/triage.service.d")
    (machine.root / "etc/systemd/system/triage.service.d").mkdir(exist_ok=True)
    (machine.root / "etc/systemd/system/triage.service.d/fast.conf").write_text(
        "[Service]\nWatchdogSec=3\nRestartSec=1\n"
    )
    machine.sh("systemctl daemon-reload; systemctl restart triage")
    pid = machine.show("triage", "MainPID")
    machine.sh(f"kill -9 {pid}")
    until(machine, "[ $(systemctl show -P NRestarts triage) = 1 ] && systemctl is-active -q triage")
    pid = machine.show("triage", "MainPID")
    machine.sh(f"kill -STOP {pid}")  # nothing in it moves any more
    until(machine, "[ $(systemctl show -P NRestarts triage) = 2 ] && systemctl is-active -q triage")
    assert "watchdog" in machine.sh("journalctl -u triage --no-pager -o cat | grep -i watchdog").lower()
    machine.sh("echo 'nonsense = 1' > /etc/triage/triage.toml")
    machine.sh("systemctl restart triage", code=1)
    until(machine, "systemctl is-failed -q triage")
    assert machine.show("triage", "ExecMainStatus") == "3"
    assert "nonsense: no such setting" in machine.sh("journalctl -u triage --no-pager -o cat")
    machine.sh("cp /root/triage/systemd/triage.toml /etc/triage/triage.toml; systemctl restart triage")


def test_secrets_come_from_their_folder_and_instances_have_a_state_of_their_own(machine):
    machine.sh(
        "install -d -m 0700 /etc/triage/media/secrets; cp /root/triage/systemd/triage.toml /etc/triage/media/\n"
        "umask 077; echo 'json://example.invalid/a-token-nobody-sees' > /etc/triage/media/secrets/receivers__oncall__urls\n"
        "systemctl start triage@media"
    )
    assert machine.show("triage@media", "ActiveState") == "active"
    assert "triage.db" in machine.sh("ls /var/lib/triage-media/")
    said = machine.sh("journalctl -u triage@media --no-pager -o cat")
    assert json.loads(next(line for line in said.splitlines() if "running: sources" in line))["level"] == "info"
    assert "given" in said
    assert "a-token-nobody-sees" not in said
    machine.sh("systemctl stop triage@media")
    assert machine.show("triage@media", "Result") == "success"
