"""Names of things, and the sentences for names that are not there."""

from dataclasses import dataclass

import pytest

from pellucid.errors import MediaError, MethodError
from pellucid.registry import Registry, settings_of


@dataclass(frozen=True)
class Fruit:
    weight: int = 1
    colour: str = "red"


def many(**options):
    return Registry("fruit", dict.fromkeys(("apple", "pear", "plum", "fig", "lime", "kiwi-fruit"), Fruit), **options)


def test_a_name_is_found_whatever_its_case_and_dashes():
    assert many().find(" Kiwi_Fruit ") is Fruit


def test_near_misses_are_listed_and_else_all():
    with pytest.raises(MethodError, match=r"^There is no fruit 'aple': did you mean 'apple' or "):
        many().find("aple")
    with pytest.raises(MethodError, match="choose apple, pear, plum, fig, lime, kiwi-fruit"):
        many().find("xyzzy")
    with pytest.raises(MethodError, match="there are apple, pear"):
        many(listing=True).find("xyzzy")


def test_of_few_all_are_listed():
    few = Registry("nuts", {"hazel": 1, "pea": 2}, plural=True, error=MediaError, otherwise="`x` lists them.")
    with pytest.raises(MediaError, match=r"^There are no nuts 'hazl': choose hazel, pea\. `x` lists them\.$"):
        few.find("hazl")


def test_a_class_enters_itself_with_its_facts():
    table = Registry("fruit")

    @table.register("quince", paper="Apicius")
    @dataclass(frozen=True)
    class Quince:
        size: int = 3

    assert (Quince.name, Quince.paper, table["quince"]) == ("quince", "Apicius", Quince)
    assert table.make("quince", {"size": 4}).size == 4
    with pytest.raises(MethodError, match=r"^Fruit 'quince' has no parameter 'colour'; it has size\.$"):
        table.make("quince", {"colour": 1})


def test_the_order_is_that_of_entry_until_it_is_ranked():
    table = Registry("number", {"one": 1, "three": 3, "two": 2, "another three": 3})
    assert list(table) == ["one", "three", "two", "another three"]
    table.order(lambda n: -n)
    assert list(table.items()) == [("three", 3), ("another three", 3), ("two", 2), ("one", 1)]
    del table["two"]
    assert dict(table) == {"three": 3, "another three": 3, "one": 1}


def test_settings_are_those_of_the_class_and_of_its_objects():
    assert settings_of(Fruit) == settings_of(Fruit()) == ("weight", "colour")


def test_an_alias_finds_its_entry_and_is_in_no_list():
    from pellucid.heatmaps import METHODS, get_method

    assert get_method("Generic_Attention") == get_method("attention-relevance")
    assert "generic-attention" not in list(METHODS)
