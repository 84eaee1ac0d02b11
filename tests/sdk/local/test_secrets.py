from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from standardwebhooks.webhooks import Webhook
from typer.testing import CliRunner

from ourvidz.cli import app
from ourvidz.errors import LocalStackError
from ourvidz.local.folder import DataFolder
from ourvidz.local.secrets import Secrets


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path / "data")
    folder.make()
    return folder


def token(*arguments: str):
    return CliRunner().invoke(app, ["token", *arguments])


def test_secrets_are_drawn_once_for_this_user_alone(folder: DataFolder):
    drawn = Secrets.make(folder)
    assert Secrets.make(folder) == Secrets.read(folder) == drawn
    assert stat.S_IMODE(folder.secrets.stat().st_mode) == 0o600


def test_each_purpose_has_a_secret_of_its_own_and_each_folder_others(folder: DataFolder, tmp_path: Path):
    other = DataFolder(tmp_path / "other")
    other.make()
    drawn = [Secrets.make(each) for each in (folder, other)]
    values = {value for keys in drawn for value in (keys.jwt, keys.url_signing, keys.service, keys.webhook)}
    assert len(values) == 8
    assert min(len(value) for value in values) >= 32


def test_secrets_do_not_show_in_a_traceback(folder: DataFolder):
    drawn = Secrets.make(folder)
    assert drawn.jwt not in repr(drawn)


def test_a_draft_of_a_crashed_start_is_no_secret(folder: DataFolder):
    folder.secrets.with_suffix(".new").write_text('{"jwt": ')
    assert Secrets.make(folder) == Secrets.read(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"jwt": "a"}'])
def test_a_damaged_file_says_what_to_do(folder: DataFolder, text: str):
    folder.secrets.write_text(text)
    with pytest.raises(LocalStackError, match="is damaged; delete it"):
        Secrets.read(folder)


def test_a_token_is_for_the_user_and_the_hours_and_nothing_else_is_printed(folder: DataFolder):
    keys = Secrets.make(folder)
    result = token("demo", "--hours", "2", "--data-dir", str(folder.path))
    assert (result.exit_code, result.stderr) == (0, "")
    claims = jwt.decode(result.stdout.strip(), keys.jwt, algorithms=["HS256"], audience="authenticated")
    assert (claims["sub"], claims["role"]) == ("demo", "authenticated")
    lasts = datetime.fromtimestamp(claims["exp"], UTC) - datetime.now(UTC)
    assert timedelta(hours=1, minutes=59) < lasts <= timedelta(hours=2)


def test_the_data_folder_can_come_from_the_environment(folder: DataFolder, monkeypatch: pytest.MonkeyPatch):
    Secrets.make(folder)
    monkeypatch.setenv("OURVIDZ_DATA_DIR", str(folder.path))
    assert token("demo").exit_code == 0


def test_an_operators_token_has_the_role(folder: DataFolder):
    keys = Secrets.make(folder)
    printed = token("ops", "--operator", "--data-dir", str(folder.path)).stdout.strip()
    assert jwt.decode(printed, keys.jwt, algorithms=["HS256"], audience="authenticated")["role"] == "service_role"


def test_webhooks_are_checked_with_the_secret_that_is_printed(folder: DataFolder):
    Secrets.make(folder)
    printed = CliRunner().invoke(app, ["webhooks", "secret", "--data-dir", str(folder.path)])
    assert (printed.exit_code, printed.stdout) == (0, f"{Secrets.read(folder).webhook}\n")
    signed = Webhook(Secrets.read(folder).webhook).sign("d", datetime.now(UTC), "{}")
    headers = {
        "webhook-id": "d",
        "webhook-timestamp": str(int(datetime.now(UTC).timestamp())),
        "webhook-signature": signed,
    }
    assert Webhook(printed.stdout.strip()).verify("{}", headers) == {}


def test_a_folder_from_before_there_were_webhooks_gets_their_secret_and_keeps_the_others(folder: DataFolder):
    old = {"jwt": "j" * 40, "url_signing": "u" * 40, "service": "s" * 40}
    folder.secrets.write_text(json.dumps(old))
    before = CliRunner().invoke(app, ["webhooks", "secret", "--data-dir", str(folder.path)])
    assert (before.exit_code, before.stdout) == (1, "")
    assert before.stderr.endswith("run `ourvidz up` first\n")
    keys = Secrets.make(folder)
    assert (keys.jwt, keys.url_signing, keys.service) == tuple(old.values())
    assert keys.webhook.startswith("whsec_")
    assert Secrets.make(folder) == Secrets.read(folder) == keys
    assert stat.S_IMODE(folder.secrets.stat().st_mode) == 0o600


def test_without_a_stack_a_token_says_to_start_one(tmp_path: Path):
    result = token("demo", "--data-dir", str(tmp_path / "none"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: No local stack was started on {tmp_path}/none yet: run `ourvidz up` first\n"


@pytest.mark.parametrize("user", ["", "x" * 201, "a\nb"])
def test_a_name_that_no_user_can_have_is_refused(folder: DataFolder, user: str):
    Secrets.make(folder)
    assert token(user, "--data-dir", str(folder.path)).exit_code == 1
