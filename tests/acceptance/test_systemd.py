"""The service under a real systemd, which is process 1 of a Debian in a folder; and what systemd says of the units."""

import json

import pytest
from machines import block, booted, checkout, debian, needs, wheelhouse
from make import body

pytestmark = [needs("mmdebstrap", "systemd-nspawn", "nsenter"), pytest.mark.timeout(900)]

RULES = "version: 1\nrules:\n  - {id: everything, alert: {to: default, group_wait: 0s}}\n"


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Debian 13 with triage installed as the page says."""
    folder = tmp_path_factory.mktemp("machine")
    wheels = wheelhouse(folder / "wheels", "3.13")
    root = debian(folder / "root", "trixie", "systemd", "systemd-sysv", "dbus", "python3", "python3-venv")
    checkout(root / "root" / "triage")
    with booted(root, f"--bind-ro={wheels}:/wheels") as found:
        install = block("docs/how-to/run-under-systemd.md", "install")
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
        "install -d -m 0700 /etc/triage/media/secrets; umask 077\n"
        "echo 'json://example.invalid/a-token-nobody-sees' > /etc/triage/media/secrets/receivers__oncall__urls"
    )
    machine.sh(f"cd /root/triage\n{block('docs/how-to/run-under-systemd.md', 'instance')}")
    assert machine.show("triage@media", "ActiveState") == "active"
    assert "triage.db" in machine.sh("ls /var/lib/triage-media/")
    said = machine.sh("journalctl -u triage@media --no-pager -o cat")
    assert json.loads(next(line for line in said.splitlines() if "running: sources" in line))["level"] == "info"
    assert "given" in said
    assert "a-token-nobody-sees" not in said
    machine.sh("systemctl stop triage@media")
    assert machine.show("triage@media", "Result") == "success"


AS_ROOT = "TRIAGE_SECRETS_DIR=/etc/triage/secrets TRIAGE_STATE_DIR=/var/lib/triage /opt/triage/bin/triage"


def take_in(machine, request_id):
    """Send one failure and wait until it is decided."""
    (machine.root / "root" / "one.json").write_bytes(body(request_id))
    machine.sh(f"{AS_ROOT} queue send /root/one.json")
    until(machine, f"{AS_ROOT} failures show {request_id}")


def test_the_page_about_backups_followed_literally(machine):
    take_in(machine, "kept-1")
    machine.sh(block("docs/how-to/back-up-and-restore.md", "backup"))
    assert machine.sh("stat -c %a /var/backups/triage/*.db").split() == ["600"]
    take_in(machine, "lost-1")
    machine.sh(block("docs/how-to/back-up-and-restore.md", "restore"))
    assert machine.show("triage", "ActiveState") == "active"
    machine.sh(f"{AS_ROOT} failures show kept-1")
    machine.sh(f"{AS_ROOT} failures show lost-1", code=1)
    assert "before-" in machine.sh("ls /var/lib/triage")
    take_in(machine, "after-1")


def test_the_page_about_upgrades_followed_literally(machine):
    before = machine.show("triage", "MainPID")
    upgrade = block("docs/how-to/upgrade.md", "upgrade")
    said = machine.sh(f"cd /root/triage\n{upgrade}", PIP_NO_INDEX="1", PIP_FIND_LINKS="/wheels")
    assert "laws hold" in said
    assert machine.show("triage", "MainPID") != before
    machine.sh("ls /var/backups/triage/before-upgrade-*.db")
    take_in(machine, "upgraded-1")


def test_the_page_about_credentials_followed_literally(machine):
    rotate = block("docs/how-to/rotate-credentials.md", "rotate")
    for number in (1, 2):
        key = {"NEW_ID": f"id-{number}", "NEW_SECRET": f"secret-of-number-{number}"}
        assert "all is well" in machine.sh(rotate, **key)
        kept = machine.sh("cat /etc/triage/secrets/credentials__access_key_*; stat -c %a /etc/triage/secrets/*")
        assert kept.split() == [f"id-{number}", f"secret-of-number-{number}", "600", "600"]
        assert "secret-of-number" not in machine.sh("journalctl -u triage --no-pager -o cat")


def test_the_keys_of_the_store_are_rotated_as_the_page_says(machine):
    rekey = block("docs/how-to/rotate-credentials.md", "rekey")
    for number in (1, 2):
        machine.sh(rekey)
        take_in(machine, f"sealed-{number}")
        assert len(machine.sh("cat /etc/triage/secrets/encryption__keys").split()) == number
    machine.sh("sed -i 2d /etc/triage/secrets/encryption__keys; systemctl restart triage")
    machine.sh(f"{AS_ROOT} failures show sealed-1; {AS_ROOT} selfcheck")
