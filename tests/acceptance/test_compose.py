"""The compose file as Debian's docker-compose reads it, the Dockerfiles, the Kubernetes files."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from containers import PROJECT, configuration, copied_files, last_stage

from anomaly.settings import GROUPS

ONCE = {"databases", "init"}
BEFORE_CELERY = "AIRFLOW_ADMIN_PASSWORD AIRFLOW_DB_PASSWORD AIRFLOW_FERNET_KEY AIRFLOW_JWT_SECRET"
BEFORE_CELERY += " AIRFLOW_SECRET_KEY ANOMALY_DB_PASSWORD BI_DB_PASSWORD POSTGRES_PASSWORD"

pytestmark = pytest.mark.slow
with_compose = pytest.mark.skipif(
    shutil.which("docker-compose") is None, reason="docker-compose is not installed"
)


@pytest.fixture
def project(tmp_path):
    shutil.copy(PROJECT / "docker-compose.yml", tmp_path)
    shutil.copytree(PROJECT / "docker", tmp_path / "docker")
    return tmp_path


@pytest.fixture
def services(project):
    make_env(project)
    return configuration(project)["services"]


def make_env(project):
    command = ["bash", "docker/make-env"]
    done = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True)
    return done.stdout


def variables(project):
    lines = (project / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


# Secrets ------------------------------------------------------------------


@with_compose
def test_without_secrets_it_refuses_and_says_what_to_run(project):
    result = subprocess.run(
        ["docker-compose", "config"], cwd=project, capture_output=True, text=True, check=False
    )

    assert result.returncode != 0
    assert "run ./docker/make-env first" in result.stderr


def test_secrets_are_long_none_is_used_twice_and_only_their_owner_reads_them(project):
    make_env(project)

    secrets = {name: value for name, value in variables(project).items() if "URL" not in name}
    assert len(set(secrets.values())) == len(secrets) == 13
    assert all(re.fullmatch(r"[\w=-]{32,}", secret) for secret in secrets.values())
    assert (project / ".env").stat().st_mode & 0o777 == 0o600


def test_making_secrets_again_changes_nothing(project):
    make_env(project)
    before = (project / ".env").read_text()

    assert "has everything already" in make_env(project)
    assert (project / ".env").read_text() == before


@with_compose
def test_a_file_of_an_older_version_gets_what_it_lacks_and_keeps_what_it_has(project):
    old = [f"{name}=kept-{name.lower()}" for name in BEFORE_CELERY.split()]
    (project / ".env").write_text("\n".join([*old, "ANOMALY_HOLIDAYS=DE"]))

    said = make_env(project)

    kept = variables(project)
    assert kept["ANOMALY_HOLIDAYS"] == "DE"
    assert all(line in (project / ".env").read_text() for line in old)
    assert ":kept-anomaly_db_password@postgres:" in kept["ANOMALY_DATABASE_URL"]
    assert "REDIS_PASSWORD" in said
    assert configuration(project)["services"]


# Services -----------------------------------------------------------------


@with_compose
def test_every_service_has_a_health_check_a_memory_limit_and_a_pinned_image(services):
    for name, service in services.items():
        assert ("healthcheck" in service) != (name in ONCE), name
        assert service["mem_limit"], name
        assert service["restart"] == ("no" if name in ONCE else "unless-stopped"), name
        assert re.search(r":\d+\.\d+(\.\d+)?$", service["image"]), name


@with_compose
def test_no_port_is_open_to_other_computers(services):
    ports = [port for service in services.values() for port in service.get("ports", [])]

    assert len(ports) == 4
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


@with_compose
def test_every_setting_reaches_every_service_of_airflow_and_other_secrets_do_not(project):
    make_env(project)
    settings = {
        f"ANOMALY_{field.upper()}" for group in GROUPS.values() for field in group.model_fields
    } - {"ANOMALY_DATABASE_URL"}
    with (project / ".env").open("a") as file:
        file.writelines(f"{name}=chosen\n" for name in sorted(settings))
        file.write("AWS_ACCESS_KEY_ID=chosen\n")
    services = configuration(project)["services"]
    ours = {name for name, service in services.items() if service["image"].startswith("anomaly:")}

    for name in ours:
        environment = services[name]["environment"]
        assert {environment.get(setting) for setting in settings} == {"chosen"}, name
        assert environment["AWS_ACCESS_KEY_ID"] == "chosen"
        assert not environment["POSTGRES_PASSWORD"], name
        assert bool(environment["AIRFLOW_ADMIN_PASSWORD"]) == (name == "init")
    assert {"scheduler", "worker", "feeder", "init"} <= ours
    assert "ANOMALY_DATABASE_URL" not in services["superset"]["environment"]


@with_compose
def test_the_database_can_be_one_that_is_there_already(project):
    (project / ".env").write_text("ANOMALY_DATABASE_URL=postgresql://me:pw@db.example.com/plant\n")
    make_env(project)

    worker = configuration(project)["services"]["worker"]["environment"]

    assert worker["AIRFLOW_CONN_ANOMALY_DB"] == worker["ANOMALY_DATABASE_URL"]
    assert worker["AIRFLOW_CONN_ANOMALY_DB"] == "postgresql://me:pw@db.example.com/plant"


# Images -------------------------------------------------------------------


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "docker/superset/Dockerfile"])
def test_a_linter_finds_nothing_in_the_dockerfile(dockerfile):
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, "--no-color", PROJECT / dockerfile], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_what_the_image_copies_is_there_and_not_left_out(project):
    allowed = {
        line.removeprefix("!")
        for line in (PROJECT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    stages = (PROJECT / "Dockerfile").read_text()
    copied = re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", stages)
    sources = {word for words in copied for word in words.split()}

    for source in sources:
        assert (PROJECT / source).exists(), source
        assert any(source == name or source.startswith(f"{name}/") for name in allowed), source
    assert ("docker/healthy.py", "/usr/local/bin/healthy") in copied_files(PROJECT / "Dockerfile")
    assert ["USER", "50000"] in last_stage(PROJECT / "Dockerfile")


def test_no_requirement_of_the_image_builds_something():
    locked = (PROJECT / "requirements-image.txt").read_text()

    assert not re.search(r"(?m)^(hatchling|editables|setuptools|pytest)==", locked)
    assert not re.search(r"(?m)^celery==", (PROJECT / "requirements.txt").read_text())
    for name in ("s3fs", "celery", "redis", "flower", "kubernetes"):
        assert re.search(rf"(?m)^{name}==", locked), name


# Kubernetes ---------------------------------------------------------------

KUBERNETES = PROJECT / "docker" / "kubernetes"


def test_the_pod_template_is_a_pod_for_kubernetes_and_for_airflow():
    # Not above: Airflow would be imported before tests/dags/conftest.py says where its home is.
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

    template = KUBERNETES / "pod-template.yaml"
    pod = yaml.safe_load(template.read_text())

    kubernetes_validate.validate(pod, "1.33", strict=True)
    read = PodGenerator.deserialize_model_file(str(template))
    assert read.spec.containers[0].name == "base"
    assert read.spec.security_context.run_as_user == 50000


def test_the_pod_template_and_the_values_name_the_same_image_and_secrets():
    pod = yaml.safe_load((KUBERNETES / "pod-template.yaml").read_text())["spec"]
    values = yaml.safe_load((KUBERNETES / "values.yaml").read_text())

    image = f"{values['defaultAirflowRepository']}:{values['defaultAirflowTag']}"
    assert pod["containers"][0]["image"] == image
    (secret,) = values["secret"]
    (from_secret,) = [v for v in pod["containers"][0]["env"] if "valueFrom" in v]
    assert from_secret["valueFrom"]["secretKeyRef"] == {
        "name": secret["secretName"],
        "key": secret["secretKey"],
    }
    assert yaml.safe_load(values["extraEnvFrom"]) == pod["containers"][0]["envFrom"]
    assert values["airflowVersion"] in (PROJECT / "requirements.txt").read_text()
