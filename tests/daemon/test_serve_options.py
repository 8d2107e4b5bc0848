"""What `serve` is told, and what it says where that cannot be."""

from pathlib import Path

import pytest

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.serve_options import Options, folder_of, read_token, state_file_of


def options(runs_dir: Path | None = None, state_dir: Path | None = None, *, wait: bool = False) -> Options:
    return Options(host="127.0.0.1", port=0, runs_dir=runs_dir, state_dir=state_dir, wait=wait)


def test_a_named_folder_has_to_be_there_unless_it_is_waited_for(tmp_path: Path) -> None:
    missing = tmp_path / "misspelt"
    with pytest.raises(ConfigError, match=r"misspelt does not exist\. Name another with --runs-dir, or .* --wait\."):
        folder_of(options(missing))
    assert folder_of(options(missing, wait=True)) == missing
    assert folder_of(options(tmp_path)) == tmp_path


def test_the_users_own_folder_need_not_be_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert folder_of(options()) == tmp_path / "hf-eco2ai" / "runs"


def test_a_folder_that_is_none_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be read \(Not a directory\)\. Name the folder that journals are in"):
        folder_of(options(tmp_path / "file"))


def test_state_is_kept_where_it_is_said_beside_the_hosts_runs_or_with_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "system").mkdir()
    assert state_file_of(options(state_dir=tmp_path / "named"), "node1") == tmp_path / "named" / "node1.json"
    assert state_file_of(options(), "node/1", tmp_path / "system") == tmp_path / "system" / "state" / "node%2F1.json"
    assert state_file_of(options(), "node1", tmp_path / "missing") == tmp_path / "data" / "hf-eco2ai" / "state" / "node1.json"
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("named", "system/state", "data/hf-eco2ai/state")] == [0o700] * 3


def test_state_that_cannot_be_kept_is_said_with_the_option_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--state-dir"):
        state_file_of(options(state_dir=tmp_path / "file" / "state"), "node1")


def test_a_token_is_read_anew_each_time_and_without_its_newline(tmp_path: Path) -> None:
    file = tmp_path / "token"
    for token in ("0123456789abcdef", "fedcba9876543210"):
        file.write_text(token + "\n")
        file.chmod(0o600)
        assert read_token(file) == token


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        (b"secret-but-short", 0o644, "chmod 600"),
        (b"secret", 0o600, "less than 16 characters"),
        (b"secret-\xff-of-no-letters", 0o600, "not plain text"),
        (None, 0o600, "cannot be read: No such file"),
    ],
)
def test_a_token_that_is_none_is_refused_without_being_told(
    tmp_path: Path, content: bytes | None, mode: int, complaint: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    with pytest.raises(ConfigError, match=complaint) as refused:
        read_token(file)
    assert "secret" not in str(refused.value)
