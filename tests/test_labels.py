"""Every source's label order, against the names its owners print."""

import pytest

from dmfer_jax import labels
from dmfer_jax.labels import Expression, parse_expression

SOURCES = {
    "FER2013": (labels.FER2013, "angry disgust fear happy sad surprise neutral"),
    "RAF-DB list": (labels.RAFDB_LIST, "surprise fear disgust happiness sadness anger neutral"),
    "RAF-DB folders": (
        labels.RAFDB_FOLDERS_MANET,
        "neutral happy sad surprise fear disgust anger",
    ),
    "AffectNet": (labels.AFFECTNET, "neutral happy sad surprise fear disgust anger contempt"),
    "FER+ votes": (
        labels.FERPLUS_VOTES[:8],
        "neutral happiness surprise sadness anger disgust fear contempt",
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_index_of_a_source_means_what_its_owners_say(source):
    order, names = SOURCES[source]
    assert list(order) == [parse_expression(name) for name in names.split()]


def test_last_columns_of_the_votes_are_no_expressions():
    assert labels.FERPLUS_VOTES[8:] == ("unknown", "NF")


def test_names_stand_in_canonical_order():
    assert labels.EXPRESSION_NAMES[Expression.NEUTRAL] == "neutral"
    assert labels.EXPRESSION_NAMES[Expression.CONTEMPT] == "contempt"
    assert [parse_expression(name) for name in labels.EXPRESSION_NAMES] == list(range(8))


def test_folder_names_in_alphabetical_order_are_not_the_canonical_order():
    # Why names travel with every output: image folders are numbered alphabetically.
    assert sorted(labels.EXPRESSION_NAMES) != list(labels.EXPRESSION_NAMES)


@pytest.mark.parametrize("name", ["Happy", " happiness\n", "HAPPINESS"])
def test_case_and_blanks_around_a_name_do_not_matter(name):
    assert parse_expression(name) is Expression.HAPPINESS


@pytest.mark.parametrize("name", ["", "joy", "3", "unknown"])
def test_unknown_name_is_an_error_that_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=f"'{name}' is no expression name; known are anger, angry"):
        parse_expression(name)
