from pathlib import Path

import pytest
from reason.core.errors import DataError, UnknownName, UserError
from reason.core.registry import Registry, entry_points_in, nearest
from reason.core.settings import load_settings, setting_sources


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    import os

    for name in list(os.environ):
        if name.startswith("REASON_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def test_flag_beats_environment_beats_file_beats_user_file_beats_default(monkeypatch, tmp_path):
    assert load_settings().strategy == "cot"
    user = tmp_path / "config" / "reason"
    user.mkdir(parents=True)
    (user / "reason.toml").write_text('strategy = "user"\nmodel = "user"\njudge_model = "user"\nsmall_model = "user"\n')
    Path("reason.toml").write_text('strategy = "file"\nmodel = "file"\njudge_model = "file"\n')
    monkeypatch.setenv("REASON_MODEL", "env")
    monkeypatch.setenv("REASON_STRATEGY", "env")
    settings = load_settings(strategy="flag")
    chosen = (settings.strategy, settings.model, settings.judge_model, settings.small_model)
    assert chosen == ("flag", "env", "file", "user")
    told = setting_sources(settings, {"strategy": "flag"})
    expected = {
        "strategy": ("flag", "flag"),
        "model": ("env", "environment"),
        "small_model": ("user", str(user / "reason.toml")),
        "local.max_num_seqs": (16, "default"),
    }
    assert told.items() >= expected.items()
    assert told["judge_model"][1].endswith("reason.toml")


def test_environment_variables_set_nested_tables(monkeypatch):
    monkeypatch.setenv("REASON_BUDGET__TOKENS", "50")
    Path("reason.toml").write_text("[budget]\ncalls = 3\n[strategies.self-consistency]\nn = 4\n[local]\nthreads = 2\n")
    settings = load_settings()
    assert (settings.budget.tokens, settings.budget.calls) == (50, 3)
    assert settings.strategies == {"self-consistency": {"n": 4}}
    assert settings.local.threads == 2
    assert setting_sources(settings, {})["budget.tokens"] == (50, "environment")


def test_an_explicit_zero_is_not_unset():
    assert load_settings(seed=0).seed == 0


def test_errors_name_the_setting(monkeypatch):
    with pytest.raises(UserError, match=r"budget\.tokens = -5: .*greater than 0"):
        load_settings(budget={"tokens": -5})
    for text, error, says in (
        ('modle = "x"\n', UnknownName, "unknown setting 'modle'.*'model'"),
        ("model = \n", DataError, r"reason\.toml"),
        ("context = " + "[" * 5000, DataError, r"cannot read the settings file .*reason\.toml"),
    ):
        Path("reason.toml").write_text(text)
        with pytest.raises(error, match=says):
            load_settings()


def installed(monkeypatch, tmp_path, name, entry):
    """Install a distribution with one strategy."""
    package = tmp_path / f"{name}-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[reason.strategies]\n{entry}\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_similar_names_are_suggested():
    assert nearest("self_consistncy", ["cot", "self-consistency", "rpc"]) == ("self-consistency",)
    assert nearest("zzz", ["cot"]) == ()


def test_our_strategies_are_registered():
    strategies = Registry("reason.strategies", "strategy")
    assert {"cot", "self-consistency"} <= set(strategies.names())
    assert strategies.load("cot").name == "cot"
    assert strategies.load_errors() == {}
    with pytest.raises(UnknownName, match="did you mean 'self-consistency'"):
        strategies.load("self-consistancy")


def test_entry_points_are_read_once_per_sys_path(monkeypatch, tmp_path):
    first = entry_points_in("reason.strategies")
    assert entry_points_in("reason.strategies") is first
    assert [e.name for e in entry_points_in("reason.strategies", "cot")] == ["cot"]
    assert entry_points_in("reason.strategies", "no-such") == ()
    installed(monkeypatch, tmp_path, "more", "more = more:More")
    assert {e.name for e in entry_points_in("reason.strategies")} == {e.name for e in first} | {"more"}


def test_a_broken_plugin_is_named_and_does_not_affect_others(monkeypatch, tmp_path):
    installed(monkeypatch, tmp_path, "broken", "bad = no_such_module_at_all:Thing")
    strategies = Registry("reason.strategies", "strategy")
    assert "no_such_module_at_all" in strategies.load_errors()["bad"]
    with pytest.raises(UserError, match="'bad' of broken cannot be loaded"):
        strategies.load("bad")
    assert strategies.load("cot").name == "cot"
