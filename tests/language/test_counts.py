import pytest

from pellucid.language import choose, counted, restored, some, translated
from pellucid.runs.batch import Progress


@pytest.mark.parametrize(
    ("count", "thing", "said"),
    [(1, "forward", "1 forward"), (2, "forward", "2 forwards"), (0, "pass", "0 passes"), (1, "pass", "1 pass")],
)
def test_one_of_a_kind_has_no_plural(count, thing, said):
    assert counted(count, thing) == said


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_counted_has_its_chinese(count):
    with restored():
        choose("zh")
        assert translated(counted(count, "forward")) == f"{count} 次前向"
        done = Progress(inputs=count, done=count, passes=count).line
        assert translated(done) == f"{count} 个输入，{count} 行完成，0 行失败，{count} 次前向，每行 0.0 kB"


@pytest.mark.parametrize(("names", "said"), [("", ""), ("abc", "a, b, c"), ("abcd", "a, b, c, ...")])
def test_of_many_names_the_first_are_said(names, said):
    assert some(names) == said
    assert some(iter(names), 9) == ", ".join(names)
