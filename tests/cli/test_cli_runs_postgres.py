"""`reason ask`, `runs` and `doctor` over a Postgres store, and commands that refuse a database."""


def test_passwords_are_shown_nowhere(cli, monkeypatch):
    monkeypatch.setenv("REASON_STORE", "postgresql://u:geheim@127.0.0.1:1/db")
    for command in (("config", "show"), ("config", "show", "--json"), ("runs", "list"), ("doctor", "--quick")):
        _, out, err = cli(*command)
        assert "geheim" not in out + err
        assert "***" in out + err, command


def test_sweeps_refuse_a_database_store(cli):
    status, out, err = cli("eval", "sweep", "sweep.toml", "--store", "postgresql://h/db")
    assert (status, out) == (2, "")
    assert "sweeps and trainings keep their runs in an SQLite file" in err
    status, _, err = cli("runs", "list", "--store", "mysql://u:geheim@h/db")
    assert (status, "geheim" in err) == (2, False)
