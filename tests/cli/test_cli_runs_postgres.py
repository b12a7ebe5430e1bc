"""`reason ask`, `runs` and `doctor` over a Postgres store, and commands that refuse a database."""

import json

from support.cli_json import printed_answer


def test_runs_of_a_database_are_listed_shown_replayed_and_removed(cli, scripted, postgres, monkeypatch):
    scripted()
    place = postgres.new_database()
    monkeypatch.setenv("REASON_STORE", place)
    answer = printed_answer(cli("ask", "What is 6 * 7?", "--json")[1])
    (listed,) = json.loads(cli("runs", "list", "--json", "--store", place)[1])
    assert (listed["id"], listed["status"]) == (answer.run_id, "finished")
    assert "42" in cli("runs", "show", answer.run_id)[1]
    assert cli("runs", "replay", answer.run_id)[1].strip() == answer.answer
    assert cli("runs", "rm", answer.run_id)[0] == 0
    assert json.loads(cli("runs", "list", "--json")[1]) == []


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
