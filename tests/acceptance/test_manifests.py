"""The Dockerfile and the manifests in the documentation, by those who know their languages; and the settings inside."""

import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from processes import ROOT, environment

from triage.settings import load_settings

FOLDER = ROOT / "docs" / "how-to" / "container"
MANIFESTS = ("kubernetes.yaml", "sidecar.yaml")


def documents(name):
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def containers(name):
    for document in documents(name):
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        yield from ((pod, each) for each in pod.get("initContainers", []) + pod.get("containers", []))


def test_hadolint_finds_nothing():
    done = subprocess.run(
        [Path(sys.executable).parent / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("version", ["1.29", "1.33"])
@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifests_are_valid(name, version):
    for document in documents(name):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_mistake_in_a_manifest_would_be_found():
    document = documents("kubernetes.yaml")[-1]
    document["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, "1.33", strict=True)


def test_the_compose_file_is_valid():
    tool = Path(sys.executable).parent / "check-jsonschema"
    command = [tool, "--builtin-schema", "vendor.compose-spec", FOLDER / "compose.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_container_of_triage_is_closed():
    ours = [(pod, each) for name in MANIFESTS for pod, each in containers(name) if "/triage:" in each["image"]]
    assert len(ours) == 3
    for pod, container in ours:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["terminationGracePeriodSeconds"] > 20, "less than consumer.grace"
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        written = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
        assert written == ["/var/lib/triage", "/tmp"]


def test_the_settings_rules_and_secrets_in_the_manifest_can_be_used(tmp_path):
    config, rules, secret, *_ = documents("kubernetes.yaml")
    for folder, files in (("secrets", secret["stringData"]), ("rules", rules["data"]), (".", config["data"])):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name, text in files.items():
            (tmp_path / folder / name).write_text(text.replace("/etc/triage-rules", str(tmp_path / "rules")))
    environ = {"TRIAGE_SECRETS_DIR": str(tmp_path / "secrets"), "HOME": str(tmp_path)}
    settings = load_settings(tmp_path / "triage.toml", environ=environ)
    assert settings.receivers["oncall"].urls
    assert settings.web.token.get_secret_value()
    done = subprocess.run(
        [sys.executable, "-m", "triage", "rules", "check", "--config", str(tmp_path / "triage.toml"), "--strict"],
        env={**environment(tmp_path), **environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
