from __future__ import annotations

import pytest
from jinja2 import TemplateError
from tests.helpers.model_files import TEMPLATE

from headgate.core.errors import ModelRefused
from headgate.registry.template_sandbox import render
from headgate.registry.templates import MAX_TEMPLATE_BYTES, MESSAGE, check_template

NOW = 1_700_000_000.0  # 2023-11-14


def rendered(template: str) -> str:
    return render(template, ({"role": "user", "content": MESSAGE},), now=NOW, tokens={"bos_token": "<s>"})


def test_a_plain_template_in_a_child() -> None:
    assert check_template(TEMPLATE, now=NOW) == "user: Hello, headgate.\n"


ENDLESS = "{% for i in range(9999) %}" * 3 + "{% endfor %}" * 3
HUNGRY = "{% set n = namespace(s='x' * 99999) %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}"

GOOD = {
    "{{ bos_token }}{{ messages[0]['content'] }}": "<s>Hello, headgate.",
    "{{ strftime_now('%Y-%m-%d') }}": "2023-11-14",
    "{% generation %}x{% endgeneration %}": "x",
    "{{ messages | tojson }}": '[{"role": "user", "content": "Hello, headgate."}]',
    "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{% endfor %}z": "z",
    "{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}": "2",
    "{{ '=' * 10 }}": "==========",
    "{% if tools %}{{ tools }}{% endif %}{{ messages[0].content.strip().split(',')[0] }}": "Hello",
    "{% macro a(x) %}{{ x }}{% endmacro %}{{ a('q') }}": "q",
}


@pytest.mark.parametrize("template", GOOD)
def test_what_real_templates_do(template: str) -> None:
    assert rendered(template) == GOOD[template]


BAD = [
    "{% for",
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.__class__ }}",
    "{{ messages['__class__'] }}",
    "{{ messages | attr('__class__') }}",
    "{{ ('__cla' ~ 'ss__') and (messages | attr('__cla' ~ 'ss__')).x }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ lipsum.x }}",
    "{% import 'os' as os %}",
    "{% include '/etc/passwd' %}",
    "{% extends 'x' %}",
    "{% from 'os' import system %}",
    "{% if false %}{% include 'x' %}{% endif %}",
    "{{ raise_exception('only tools') }}",
    "{{ messages.append(1) }}",
    "{% for i in range(100000000) %}x{% endfor %}",
    "{{ 'x' * 1000000000 }}",
    "{{ [0] * 1000000000 }}",
    "{{ 9 ** 999999999 }}",
    "{{ '%99999999d' % 1 }}",
    "{{ 'x'.ljust(999999999) }}",
    "{% for i in range(9999) %}{% for j in range(9999) %}{{ 'xxxxxxxxxx' }}{% endfor %}{% endfor %}",
    "{{ undefined_thing.x }}",
    "{{ 1 / 0 }}",
]


@pytest.mark.parametrize("template", BAD)
def test_what_no_template_may(template: str) -> None:
    with pytest.raises((TemplateError, ZeroDivisionError, TypeError)):
        rendered(template)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (ENDLESS, "does not end"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "nests too deeply"),
        (HUNGRY, "memory|does not end"),
        ("{{ 'nothing of it' }}", "loses the user's message"),
        ("{{ raise_exception('only for tools') }}", "only for tools"),
        ("x" * (MAX_TEMPLATE_BYTES + 1), "longer than"),
        ("{{ \ud800 }}", "refused"),
    ],
)  # fmt: skip
def test_endless_and_hungry_templates_end_in_the_child(template: str, why: str) -> None:
    with pytest.raises(ModelRefused, match=why):
        check_template(template, now=NOW, timeout_s=1.0)
