from __future__ import annotations

import pytest
import reason.core.settings as settings_module
from reason.agents.reasoner import Reasoner
from reason.core.budget import Budget
from reason.core.errors import DataError, UnknownName, UserError
from reason.core.settings import Settings
from reason.core.types import Document, Question


@pytest.fixture
def settings(tmp_path):
    return Settings(
        model="main",
        store=tmp_path / "runs.sqlite3",
        seed=5,
        strategy="self-consistency",
        strategies={"self-consistency": {"n": 6}, "best-of-n": {"n": 3}},
        verifiers={"davinci": {"k": 4}},
        budget=Budget(tokens=1000),
    )


def test_options_default_to_the_reasoners(settings):
    reasoner = Reasoner(settings=settings, parameters={"max_tokens": 50})
    config = reasoner.plan("Why?", choices=("a", "b"), documents=(Document(name="d", text="t"),))
    assert config.question == Question(text="Why?", choices=("a", "b"), documents=(Document(name="d", text="t"),))
    assert (config.strategy, config.parameters["n"], config.parameters["max_tokens"]) == ("self-consistency", 6, 50)
    assert (config.models, config.seed, config.budget, config.tenant) == ({"main": "main"}, 5, Budget(tokens=1000), "")
    assert (config.verify, config.repairs, config.require_verified) == ((), 0, False)


def test_options_of_a_run_do_not_change_the_reasoner(settings):
    reasoner = Reasoner(settings=settings, parameters={"max_tokens": 50})
    before = reasoner.plan("Why?")
    config = reasoner.plan(
        "Why?",
        strategy="best-of-n",
        model="other",
        judge_model="judge",
        parameters={"max_tokens": 60},
        verify=("davinci",),
        verify_parameters={"davinci": {"k": 7, "judge": "model"}},
        repairs=2,
        budget={"seconds": 3},
        seed=8,
        require_verified=True,
        tenant="anne",
    )
    assert (config.strategy, config.parameters["n"], config.parameters["max_tokens"]) == ("best-of-n", 3, 60)
    assert config.models == {"main": "other", "judge": "judge"}
    assert (config.verify, config.verify_parameters["davinci"]["k"], config.repairs) == (("davinci",), 7, 2)
    assert (config.budget, config.seed, config.require_verified, config.tenant) == (Budget(seconds=3), 8, True, "anne")
    assert reasoner.plan("Why?") == before


def test_parameters_belong_to_their_strategy(settings):
    reasoner = Reasoner(settings=settings, parameters={"max_tokens": 50})
    default = Reasoner(settings=settings).plan("?", strategy="cot").parameters["max_tokens"]
    assert reasoner.plan("?", strategy="cot").parameters["max_tokens"] == default != 50
    assert reasoner.plan("?", parameters={"n": 2}).parameters["max_tokens"] == 50


def test_a_jury_is_chosen_per_run(settings):
    reasoner = Reasoner(settings=settings)
    models = reasoner.plan("?", strategy="edgejury", jurors=("a", "b")).models
    assert models == {"main": "main", "juror-1": "a", "juror-2": "b"} | (
        {"embedding": models["embedding"]} if "embedding" in models else {}
    )
    with pytest.raises(UserError, match="uses no jury"):
        reasoner.plan("?", strategy="cot", jurors=("a",))


@pytest.mark.parametrize(
    ("role", "said", "who"),
    [
        ("small_model", "uses no small model, so it cannot use the small model x", "cascade or glimprouter"),
        ("judge_model", "uses no judge, so it cannot use the judge x", "davinci"),
        ("reward_model", "uses no reward model, so it cannot use the reward model x", "best-of-n"),
    ],
)
def test_unused_models_are_refused_and_those_of_the_settings_left_out(settings, role, said, who):
    with pytest.raises(UserError, match=f"self-consistency {said}") as e:
        Reasoner(settings=settings, **{role: "x"})
    assert (e.value.param, who in e.value.hint) == (role, True)
    reasoner = Reasoner(settings=settings.model_copy(update={role: "x"}))
    assert reasoner.plan("?").models == {"main": "main"}
    asking = {"small_model": "glimprouter", "judge_model": "coat", "reward_model": "best-of-n"}[role]
    models = {name: model for name, model in reasoner.plan("?", strategy=asking).models.items() if name != "embedding"}
    assert models == {"main": "main", role.removesuffix("_model"): "x"}
    if role != "reward_model":  # a plan takes none of its own
        with pytest.raises(UserError, match=said):
            Reasoner(settings=settings).plan("?", **{role: "x"})


def test_the_parameters_of_a_run_decide_whether_the_judge_is_used(settings):
    reasoner = Reasoner(settings=settings)
    judged = {"verify": ("davinci",), "verify_parameters": {"davinci": {"judge": "model"}}}
    assert reasoner.plan("?", judge_model="x", **judged).models == {"main": "main", "judge": "x"}
    for judge in ("small", "lexical"):
        with pytest.raises(UserError, match="uses no judge"):
            reasoner.plan("?", judge_model="x", verify=("davinci",), verify_parameters={"davinci": {"judge": judge}})


@pytest.mark.parametrize(("base_is_here", "embedded"), [(True, "base"), (False, "small")])
def test_the_judge_that_auto_stands_for_is_part_of_the_plan(settings, monkeypatch, base_is_here, embedded):
    monkeypatch.setattr(
        "reason.verify.entailment.factory.find_embedded", lambda settings: "base" if base_is_here else None
    )
    reasoner = Reasoner(settings=settings, verify=("davinci", "edgejury"))

    def planned(config):
        return config.models, {name: values["judge"] for name, values in config.verify_parameters.items()}

    # the main model is nobody's judge by default: it would judge its own answers
    assert planned(reasoner.plan("?")) == ({"main": "main"}, {"davinci": embedded, "edgejury": embedded})
    named = ({"main": "main", "judge": "x"}, {"davinci": "model", "edgejury": "model"})
    assert planned(reasoner.plan("?", judge_model="x")) == named
    assert planned(Reasoner(settings=settings, judge_model="x", verify=("davinci", "edgejury")).plan("?")) == named
    of_settings = Reasoner(settings=settings.model_copy(update={"judge_model": "x"}), verify=("davinci", "edgejury"))
    assert planned(of_settings.plan("?")) == named
    jury = reasoner.plan("?", strategy="edgejury", verify=())
    assert jury.parameters["judge"] == embedded


def test_a_judge_model_that_is_not_named_and_a_judge_that_does_not_exist_are_refused(settings):
    reasoner = Reasoner(settings=settings, verify=("davinci",))
    with pytest.raises(UserError, match="needs a judge model, and none is named") as unnamed:
        reasoner.plan("?", verify_parameters={"davinci": {"judge": "model"}})
    assert "--judge-model" in unnamed.value.hint
    with pytest.raises(UnknownName, match="unknown judge 'smal'") as unknown:
        reasoner.plan("?", verify_parameters={"davinci": {"judge": "smal"}})
    assert unknown.value.nearest == ("small",)


@pytest.mark.parametrize(
    ("differing", "param", "error"),
    [
        ({"parameters": {"nn": 2}}, "nn", UnknownName),
        ({"parameters": {"n": 0}}, "n", UserError),
        ({"budget": {"tokens": -1}}, "tokens", UserError),
        ({"require_verified": True}, "verify", UserError),
        ({"verify": ("davinci",), "verify_parameters": {"davinci": {"k": -1}}}, "k", UserError),
    ],
)
def test_errors_name_the_argument_at_fault(settings, differing, param, error):
    with pytest.raises(error) as caught:
        Reasoner(settings=settings).plan("?", **differing)
    assert caught.value.param == param
    assert param in str(caught.value)


def test_unknown_names_and_invalid_questions_are_refused(settings):
    reasoner = Reasoner(settings=settings)
    for wrong in ({"strategy": "no-such"}, {"verify": ("no-such",)}):
        with pytest.raises(UnknownName):
            reasoner.plan("?", **wrong)
    with pytest.raises(UserError, match="empty"):
        reasoner.plan("  ")
    with pytest.raises(UserError, match="not named"):
        reasoner.plan("?", verify_parameters={"davinci": {"k": 2}})


def test_planning_does_not_read_settings_again(settings, monkeypatch):
    reasoner = Reasoner(settings=settings)

    def read(path):
        raise AssertionError("a settings file was read")

    monkeypatch.setattr(settings_module, "_read_toml", read)
    monkeypatch.setenv("REASON_SEED", "99")
    assert reasoner.plan("?").seed == 5


def test_a_strategys_calibration_map_is_read_once(settings, tmp_path):
    broken = tmp_path / "map.json"
    broken.write_text("{}")
    reasoner = Reasoner(settings=settings.model_copy(update={"calibration": {"cot": broken}}))
    assert reasoner.plan("?").calibration is None  # the own strategy has none
    with pytest.raises(DataError):
        reasoner.plan("?", strategy="cot")
    assert reasoner.plan("?", strategy="cot", model="other").calibration is None  # it would be for another model
