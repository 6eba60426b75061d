"""The compose file, as Debian's docker-compose reads it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
COMPOSE = shutil.which("docker-compose")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPOSE is None, reason="docker-compose is not installed"),
]


@pytest.fixture
def project(tmp_path):
    shutil.copy(PROJECT / "docker-compose.yml", tmp_path)
    shutil.copytree(PROJECT / "docker", tmp_path / "docker")
    return tmp_path


def config(project):
    return subprocess.run(
        [COMPOSE, "config"], cwd=project, capture_output=True, text=True, check=False
    )


def test_without_secrets_it_refuses_and_says_what_to_run(project):
    result = config(project)

    assert result.returncode != 0
    assert "run ./docker/make-env first" in result.stderr


def test_with_generated_secrets_it_is_valid_and_none_is_used_twice(project):
    subprocess.run(["bash", "docker/make-env"], cwd=project, check=True, capture_output=True)

    result = config(project)

    assert result.returncode == 0, result.stderr
    secrets = re.findall(r"=(.+)", (project / ".env").read_text())
    assert len(secrets) == len(set(secrets)) == 8
    assert all(len(secret) >= 32 for secret in secrets)


def test_making_secrets_again_keeps_the_old_ones(project):
    subprocess.run(["bash", "docker/make-env"], cwd=project, check=True, capture_output=True)
    before = (project / ".env").read_text()

    again = subprocess.run(
        ["bash", "docker/make-env"], cwd=project, check=False, capture_output=True, text=True
    )

    assert again.returncode == 1
    assert "delete it to make new secrets" in again.stderr
    assert (project / ".env").read_text() == before
