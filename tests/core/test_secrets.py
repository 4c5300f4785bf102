"""Secrets are masked wherever they stand, and nothing else is."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segradius.core.errors import BudgetError, InputError, TargetError
from segradius.core.secrets import is_secret, redacted, without_secrets

SECRET = "s3cr3tValue0123456789"
HOLDING = [
    "hf:team/net,token={}",
    "hf:team/net,token={},revision=main",
    "hf:team/net,revision=main,use_auth_token={}",
    "cannot build hf:net with (token='{}', num_labels=3)",
    '{{"token": "{}"}}',
    "token: {}",
    "HF_TOKEN={}",
    "their:make,api_key={}",
    "their:make,apikey={}",
    "their:make,password={},user=me",
    "their:make,db_password={}",
    "their:make,client_secret={}",
    "their:make,access_token={}",
    "their:make,AWS_SECRET_ACCESS_KEY={}",
    "https://me:{}@host.example/net.pth",
    "https://{}@host.example/net.pth",
    "oip:http://me:{}@localhost:8000/v2/models/net",
    "https://host.example/net.pth?token={}&size=3",
    "https://host.example/net.pth?sv=1&sig={}",
    "https://host.example/net.pth?X-Amz-Signature={}",
    "https://host.example/net.pth?key={}",
    "Authorization: Bearer {}",
    "Authorization: Basic {}",
    "authorization={}",
    "--model=hf:team/net,token={}",
    "hf_{}",
    "ghp_{}",
    "github_pat_{}",
    "sk-{}",
]
HOLDING_NONE = [
    "hf:team/net,revision=main,local_files_only=true",
    "oip:http://localhost:8000/v2/models/net,token_env=MY_TOKEN,batch=4",
    "smp:Unet,encoder_name=tu-vit,with_cls_token=true",
    "option 'x' has no name; expected name=value, as in decay=0.9,loss=js",
    "a clever(batches=10;samples=1) is NAME(key=value;key=value)",
    "model 'x,y' is not key=value",
    "unknown option 'token'; did you mean 'tokens'? Known: num_tokens, tokens",
    "num_tokens=4, keys=3, keyed=true",
    "net.pth has SHA-256 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef; its card says ff",
    "segradius attack --model demo --data voc:/home/me/key=value/images --eps l2=0.5,linf=4/255",
    "the environment variable MY_TOKEN is not set",
    "tokenizer.json, secrets.py, passwords.txt",
]


@pytest.mark.parametrize("text", HOLDING)
def test_no_secret_is_left_and_it_is_said_that_one_was_there(text):
    found = redacted(text.format(SECRET))
    assert SECRET not in found
    assert "***" in found
    assert redacted(found) == found


@pytest.mark.parametrize("text", HOLDING_NONE)
def test_other_texts_stay_as_they_are(text):
    assert redacted(text) == text


@pytest.mark.parametrize("kind", [InputError, TargetError])
@pytest.mark.parametrize("text", HOLDING)
def test_no_error_holds_one_not_even_in_its_arguments(kind, text):
    error = kind(text.format(SECRET))
    assert SECRET not in str(error) + repr(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_errors_with_numbers_are_as_they_were():
    assert BudgetError(1, 2, 3).budget == pickle.loads(pickle.dumps(BudgetError(1, 2, 3))).budget == 2


def test_what_is_kept_lacks_entries_that_are_secrets_by_name():
    given = {"arguments": {"token": SECRET, "n": 3}, "list": [f"hf:x,token={SECRET}", 1.5, None], "pair": ("a", True)}
    found = without_secrets(given)
    assert found == {"arguments": {"n": 3}, "list": ["hf:x,token=***", 1.5, None], "pair": ("a", True)}
    assert without_secrets(found) == found


@given(st.text(max_size=60))
def test_masking_twice_is_masking_once(text):
    assert redacted(redacted(text)) == redacted(text)


@given(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.from_regex(r"[A-Za-z0-9_.+/-]{6,30}", fullmatch=True))
def test_any_value_of_an_option_that_is_a_secret_is_masked(name, value):
    option = f"{name}_token" if is_secret(f"{name}_token") else "token"
    text = redacted(f"hf:a/b,{option}={value},c=1")
    assert text == f"hf:a/b,{option}=***,c=1"
