from pathlib import Path

import pytest
from reason.core.errors import UserError
from reason.core.settings import load_settings, setting_sources
from reason.core.store.location import is_postgres_url, parse_location, redacted_location, require_file


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("runs.sqlite3", Path("runs.sqlite3")),
        ("C:/runs.sqlite3", Path("C:/runs.sqlite3")),
        (Path("a/b"), Path("a/b")),
        ("postgresql://h/db", "postgresql://h/db"),
        ("POSTGRES://u@h/db", "postgresql://u@h/db"),
        ("postgresql:///db", "postgresql:///db"),
    ],
)
def test_a_location_is_a_file_or_a_postgres_url(given, place):
    assert parse_location(given) == place
    assert is_postgres_url(parse_location(given)) == isinstance(place, str)


def test_other_urls_are_refused_without_showing_them():
    with pytest.raises(UserError, match=r"unsupported run-store URL scheme 'mysql'") as e:
        parse_location("mysql://u:geheim@h/db")
    assert "geheim" not in str(e.value)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://u:geheim@h:5/db", "postgresql://u:***@h:5/db"),
        ("postgresql://u:ge@heim@h/db?sslmode=require", "postgresql://u:***@h/db?sslmode=require"),
        ("postgresql://h/db?password=geheim&user=u", "postgresql://h/db?password=***&user=u"),
        ("postgresql://u@h/db", "postgresql://u@h/db"),
        ("postgresql:///db?host=/run/pg", "postgresql:///db?host=/run/pg"),
        ("postgresql://[u:geheim@h/db", "postgresql://…"),
        ("postgresql://u:ge/heim@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u:ge#h?e:im@h/db?Password=x", "postgresql://u:***@h/db?Password=***"),
        ("postgresql://h/db?password=ge@heim", "postgresql://…"),
    ],
)
def test_a_url_is_shown_without_its_password(address, shown):
    assert redacted_location(address) == shown


def test_settings_take_either_and_show_no_password(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REASON_STORE", "postgresql://u:geheim@h/db")
    settings = load_settings()
    assert settings.store == "postgresql://u:geheim@h/db"
    assert setting_sources(settings, {})["store"] == ("postgresql://u:***@h/db", "environment")
    assert load_settings(store="x/runs.db").store == Path("x/runs.db")
    assert load_settings(store="x/runs.db").data_dir == (tmp_path / "x").resolve()
    assert load_settings(**settings.model_dump()).store == settings.store
    with pytest.raises(UserError, match="evaluations keep their runs in an SQLite file"):
        require_file(settings.store, "evaluations")
