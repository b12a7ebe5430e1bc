"""Providers' names and keys are checked before LiteLLM is imported, and what is similar is suggested."""

import importlib.util
import os
import subprocess
import sys

import pytest
from reason.core.errors import UnknownName, UserError
from reason.core.extras import install_command
from reason.core.settings import ProviderSettings, Settings
from reason.serving.factory import load_model
from reason.serving.litellm import providers
from reason.serving.litellm.providers import (
    EXAMPLE_MODELS,
    KEY_VARIABLES,
    find_target,
    key_in_environment,
    load_litellm,
    map_entry,
    provider_of_family,
)


def test_the_keys_are_those_that_litellm_looks_for(monkeypatch):
    for provider, variables in KEY_VARIABLES.items():
        missing = load_litellm().validate_environment(f"{provider}/any")["missing_keys"]
        assert set(missing) == set(variables), provider
        assert key_in_environment(provider) is None
        for variable in variables:
            with monkeypatch.context() as one:
                one.setenv(variable, "key")
                assert key_in_environment(provider) == variable


def test_bedrock_needs_awss_sdk_and_leaves_the_credentials_to_it(monkeypatch):
    name = "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0"
    pytest.importorskip("boto3")
    assert find_target(name, Settings()).api_key is None
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "boto3" else find_spec(name))
    with pytest.raises(UserError, match="needs AWS's SDK, which is not installed") as raised:
        find_target(name, Settings())
    assert raised.value.hint == "pip install boto3"


def test_example_models_are_in_the_map():
    for provider, name in EXAMPLE_MODELS.items():
        assert provider in KEY_VARIABLES
        assert map_entry(*name.split("/")), name


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("opnai/gpt-4o", "openai/gpt-4o"),
        ("locl/smollm2-135m", "local/smollm2-135m"),
        ("hosted-vllm/small", "hosted_vllm/small"),
    ],
)
def test_a_misspelt_provider_is_told_with_a_similar_one(name, similar):
    with pytest.raises(UnknownName) as caught:
        find_target(name, Settings())
    assert caught.value.nearest[0] == similar
    assert f"did you mean {similar!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("gpt-5.6", "openai/gpt-5.6"),
        ("o3-mini", "openai/o3-mini"),
        ("claude-opus-4-1", "anthropic/claude-opus-4-1"),
    ],
)
async def test_a_model_without_its_provider_is_told_with_it(name, full):
    with pytest.raises(UnknownName) as caught:
        await load_model(name, Settings())
    assert caught.value.nearest == (full,)


@pytest.mark.parametrize("name", ["smollm2-135m", "gpt4all", "oracle", "geminid"])
def test_other_names_are_of_no_provider(name):
    assert provider_of_family(name) is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gemini/gemini-2.5-flash", "needs a key in GEMINI_API_KEY or GOOGLE_API_KEY, which is not set"),
        ("openai/gpt-5.6", "needs a key in OPENAI_API_KEY, which is not set"),
    ],
)
def test_a_missing_key_is_named(name, says):
    with pytest.raises(UserError, match=says):
        find_target(name, Settings())


def test_the_command_tells_it_without_importing_litellm_or_torch(tmp_path):
    program = (
        "import sys\nfrom reason.cli.main import main\n"
        "status = main(['ask', 'What is 6 times 7?', '-m', 'anthropic/claude-haiku-4-5'])\n"
        "heavy = {'litellm', 'openai', 'torch', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else status)"
    )
    environment = os.environ | {"XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "needs a key in ANTHROPIC_API_KEY, which is not set" in done.stderr


def test_a_key_in_another_variable_or_an_address_of_its_own_is_enough(monkeypatch):
    monkeypatch.setenv("GOOGLE_API_KEY", "key")
    assert find_target("gemini/gemini-2.5-flash", Settings()).provider == "gemini"
    monkeypatch.setenv("MINE", "key")
    named = Settings(providers={"mistral": ProviderSettings(api_key_env="MINE")})
    assert find_target("mistral/mistral-small-latest", named).api_key == "key"


def test_without_litellm_only_servers_of_ones_own_are_called(keys, monkeypatch):
    monkeypatch.setattr(providers, "is_litellm_installed", lambda: False)
    for name in ("openai/gpt-5.6", "anthropic/claude-haiku-4-5"):
        with pytest.raises(UserError, match="needs the package 'litellm', which is not installed") as caught:
            find_target(name, Settings())
        assert caught.value.hint == install_command("providers")
    with pytest.raises(UnknownName, match="did you mean 'anthropic/x'"):
        find_target("anthropc/x", Settings())
    base = "http://127.0.0.1:9/v1"
    own = Settings(providers={"openai": ProviderSettings(api_base=base)})
    assert find_target("openai/mine", own).is_own_server
    monkeypatch.setenv("OPENAI_API_BASE", base)
    assert find_target("openai/mine", Settings()).api_base == base


def test_a_provider_that_the_program_registered_is_known(monkeypatch):
    monkeypatch.setattr(load_litellm(), "custom_provider_map", [{"provider": "mine", "custom_handler": object()}])
    assert find_target("mine/x", Settings()).provider == "mine"
