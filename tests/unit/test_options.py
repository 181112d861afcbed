"""Options: strict towards people, and all mistakes at once."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanlan.errors import Refuse
from spanlan.options import Row, choice, describe, name, number, option, parse, switch

# a busy machine is no mistake of the code
unhurried = settings(deadline=None, max_examples=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    mode: str = option(parse=choice("vxlan", "ipvlan", "macvlan"), default="vxlan", help="How frames travel.")
    vni: int | None = option(
        parse=number(1, 2**24 - 1), default=None, default_text="allocated", help="VXLAN network identifier."
    )
    mtu: int = option(
        parse=number(68, 65535), default=1450, aliases=["com.docker.network.driver.mtu"], help="Bytes of a packet."
    )
    udp_csum: bool = option(parse=switch, default=True, help="Outer checksum.")
    segment: str | None = option(parse=name, default=None, help="Name of the segment.")
    secret: str = option(
        parse=choice("right"), default="right", values="a word", shown=lambda text: "…" if text else "", help="Hidden."
    )
    computed: int = 7


def mistake(given: dict[str, str]) -> str:
    with pytest.raises(Refuse) as refused:
        parse(Table, given)
    return str(refused.value)


def test_nothing_given_is_all_defaults() -> None:
    assert parse(Table, {}) == Table()


def test_what_is_given_is_parsed() -> None:
    given = {"mode": "ipvlan", "vni": "42", "mtu": "9000", "udp_csum": "false", "segment": "blue"}
    assert parse(Table, given) == Table(mode="ipvlan", vni=42, mtu=9000, udp_csum=False, segment="blue")


def test_an_alias_means_the_same() -> None:
    assert parse(Table, {"com.docker.network.driver.mtu": "1400"}) == Table(mtu=1400)


def test_an_option_given_under_both_names_may_say_the_same_twice() -> None:
    assert parse(Table, {"com.docker.network.driver.mtu": "1400", "mtu": "1400"}) == Table(mtu=1400)


def test_an_option_that_contradicts_its_alias_is_refused_with_both_names() -> None:
    text = mistake({"com.docker.network.driver.mtu": "1400", "mtu": "1500"})
    assert text == "options com.docker.network.driver.mtu and mtu say different things; give one of them"


@pytest.mark.parametrize(("given", "nearest"), [("vnid", "vni"), ("segmnet", "segment"), ("udp-csum", "udp_csum")])
def test_an_unknown_option_names_the_nearest(given: str, nearest: str) -> None:
    assert mistake({given: "1"}) == f"unknown option {given}: did you mean {nearest}?"


def test_an_unknown_option_near_to_none_lists_those_there_are() -> None:
    text = mistake({"q": "1"})
    assert text.startswith("unknown option q: known are com.docker.network.driver.mtu, mode, mtu, ")


def test_a_field_that_is_no_option_cannot_be_set_from_outside() -> None:
    assert "unknown option computed" in mistake({"computed": "8"})


def test_all_mistakes_are_told_at_once() -> None:
    text = mistake({"mode": "vxlam", "vni": "0", "mtu": "big", "udp_csum": "maybe", "segment": "/", "colour": "red"})
    for part in (
        "option mode=vxlam: must be one of vxlan, ipvlan, macvlan (did you mean vxlan?)",
        "option vni=0: must be a number from 1 to 16777215",
        "option mtu=big: must be a number from 68 to 65535",
        "option udp_csum=maybe: must be true or false",
        "option segment=/: must be 1 to 63 letters",
        "unknown option colour",
    ):
        assert part in text
    assert text.count("; ") == 5


def test_mistakes_that_the_caller_found_come_first_in_the_same_message() -> None:
    with pytest.raises(Refuse, match=r"^no subnet was given; option vni=0: "):
        parse(Table, {"vni": "0"}, more=["no subnet was given"])


def test_options_of_somebody_else_are_passed_over_and_may_be_what_was_meant() -> None:
    assert parse(Table, {"com.docker.network.enable_ipv6": "true"}, also_known=["com.docker.network.enable_ipv6"]) == (
        Table()
    )
    with pytest.raises(Refuse, match=r"did you mean com\.docker\.network\.enable_ipv6"):
        parse(Table, {"com.docker.network.enable_ipv4": "true"}, also_known=["com.docker.network.enable_ipv6"])


def test_messages_speak_of_settings_as_people_write_them() -> None:
    with pytest.raises(
        Refuse, match=r"setting SPANLAN_VNI=x: must be.*unknown setting SPANLAN_MUT: did you mean SPANLAN_MTU"
    ):
        parse(Table, {"vni": "x", "mut": "1"}, word="setting", spell=lambda text: f"SPANLAN_{text.upper()}")


def test_a_secret_is_not_repeated() -> None:
    text = mistake({"secret": "hunter2"})
    assert "hunter2" not in text
    assert "option secret=…" in text


def test_the_reference_table_says_what_the_declaration_says() -> None:
    rows = {row.names[0]: row for row in describe(Table)}
    assert list(rows) == ["mode", "vni", "mtu", "udp_csum", "segment", "secret"]
    assert rows["mode"] == Row(("mode",), "vxlan, ipvlan, macvlan", "vxlan", "How frames travel.")
    assert rows["vni"] == Row(("vni",), "1 to 16777215", "allocated", "VXLAN network identifier.")
    assert rows["mtu"].names == ("mtu", "com.docker.network.driver.mtu")
    assert (rows["udp_csum"].values, rows["udp_csum"].default) == ("true, false", "true")
    assert (rows["segment"].values, rows["segment"].default) == ("name", "")
    assert rows["secret"].values == "a word"


@pytest.mark.parametrize(
    "text",
    ["", " 5", "5 ", "+5", "1_0", "0x10", "1e1", "\u0665", "-5", "5.0", "101", "0", "9" * 5000],
    ids=lambda t: t[:6],
)
def test_a_number_is_digits_within_its_bounds(text: str) -> None:
    with pytest.raises(ValueError, match="a number from 1 to 100"):
        number(1, 100)(text)


def test_the_bounds_of_a_number_belong_to_it() -> None:
    assert [number(1, 100)(text) for text in ("1", "100", "007")] == [1, 100, 7]
    assert number(-5, 5)("-5") == -5


@pytest.mark.parametrize(
    ("text", "expected"), [("true", True), ("1", True), ("ON", True), ("False", False), ("0", False)]
)
def test_a_switch_is_read_as_docker_reads_it(text: str, expected: bool) -> None:  # noqa: FBT001
    assert switch(text) is expected


@pytest.mark.parametrize("text", ["", "-a", ".a", "_a", "a/b", "a b", "a\n", "ä", "a" * 64, ".."])
def test_a_name_that_could_leave_its_place_among_the_keys_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="1 to 63 letters"):
        name(text)


@unhurried
@given(st.text())
def test_a_name_that_is_taken_never_holds_a_slash_or_a_blank(text: str) -> None:
    try:
        taken = name(text)
    except ValueError:
        return
    assert taken == text
    assert not set(text) & set("/ \t\n\0")
