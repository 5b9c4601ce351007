"""The encoder: one row or a batch, None or NaN, this history's levels or that one's."""

import json
from typing import Any

import numpy as np
import pytest

from models.encoding import (
    Columns,
    EncodingError,
    NumericColumn,
    TableEncoder,
    row_count,
)


def texts(values: list[str | None], levels: list[str] | None = None) -> Any:
    """A dictionary-encoded column; levels in order of appearance unless given."""
    found = levels or list(dict.fromkeys(v for v in values if v is not None))
    codes = [-1 if v is None else found.index(v) for v in values]
    return np.array(codes, dtype=np.int32), np.array(found, dtype=object)


@pytest.fixture
def columns() -> Columns:
    rng = np.random.default_rng(1)
    age = rng.normal(40, 10, 400)
    age[::7] = np.nan
    source = [None if i % 11 == 0 else "web" if i % 3 else "fair" for i in range(400)]
    source[5], source[6] = "fax", "telex"
    return {"age": age, "source": texts(source), "same": np.full(400, 2.5)}


def rows(columns: Columns, at: Any) -> Columns:
    return {k: (c[0][at], c[1]) if isinstance(c, tuple) else c[at] for k, c in columns.items()}


def test_codes_are_ranked_by_frequency_and_rare_levels_are_pooled(columns: Columns) -> None:
    encoder = TableEncoder.fit(columns)
    assert encoder.names == ("age", "source", "same")
    assert encoder.categorical == (1,)
    row = {"source": texts(["web", "fair", "fax", "telex", "unheard of", None])}
    np.testing.assert_array_equal(encoder.trees(row)[:, 1], [0, 1, 2, 2, 2, np.nan])
    assert encoder.unseen(row) == {"source": 1}
    assert encoder.unseen(columns) == {}


def test_only_the_text_of_a_level_matters(columns: Columns) -> None:
    encoder = TableEncoder.fit(columns)
    one = {"source": texts(["web", "fair"], ["fair", "x", "web"])}
    other = {"source": texts(["web", "fair"], ["web", "fair"])}
    np.testing.assert_array_equal(encoder.trees(one), encoder.trees(other))
    np.testing.assert_array_equal(encoder.linear(one), encoder.linear(other))


def test_linear_columns_are_standardised_clipped_and_mapped_to_their_source(
    columns: Columns,
) -> None:
    encoder = TableEncoder.fit(columns)
    linear = encoder.linear(columns)
    labels = ("age", "source=web", "source=fair", "source other", "age missing", "source missing")
    assert encoder.linear_labels == labels
    assert encoder.linear_names == ("age", "source", "source", "source", "age", "source")
    assert abs(linear[~np.isnan(columns["age"]), 0].mean()) < 1e-12
    assert np.all(linear[np.isnan(columns["age"]), 0] == 0)
    far = encoder.linear({"age": np.array([1e9, -1e9, np.inf])})[:, 0]
    assert np.all(np.abs(far) <= 3) and far[0] == far[2] == linear[:, 0].max()
    assert far[1] == linear[:, 0].min()
    np.testing.assert_array_equal(linear[:, 1:4].sum(axis=1) + linear[:, 5], 1.0)


def test_winsor_limits_hold_back_an_outlier() -> None:
    values = np.append(np.arange(999.0), 1e12)
    fitted = TableEncoder.fit({"x": values}).columns[0]
    assert isinstance(fitted, NumericColumn)
    assert fitted.high < 1000 and fitted.mean == pytest.approx(499.5, abs=1)


def test_a_rare_flag_survives_its_winsor_limits() -> None:
    flag = np.zeros(1000)
    flag[:3] = 1
    encoder = TableEncoder.fit({"flag": flag})
    assert encoder.linear({"flag": np.array([0.0, 1.0])})[:, 0].tolist() == pytest.approx(
        [-0.0549, 3.0], abs=1e-3
    )


def test_one_row_and_a_batch_give_the_same_bits(columns: Columns) -> None:
    encoder = TableEncoder.fit(columns)
    trees, linear = encoder.trees(columns), encoder.linear(columns)
    for i in range(0, 400, 13):
        one = rows(columns, slice(i, i + 1))
        assert encoder.trees(one).tobytes() == trees[i].tobytes()
        assert encoder.linear(one).tobytes() == linear[i].tobytes()


def test_none_nan_and_an_absent_column_mean_the_same(columns: Columns) -> None:
    encoder = TableEncoder.fit(columns)
    size = np.zeros(1)
    none: Any = {"age": np.array([None], dtype=object), "source": None, "same": size}
    nan: Columns = {"age": np.array([np.nan]), "source": texts([None], ["web"]), "same": size}
    absent: Columns = {"same": size}
    for encode in (encoder.trees, encoder.linear):
        assert encode(none).tobytes() == encode(nan).tobytes() == encode(absent).tobytes()


def test_a_value_of_the_wrong_kind_is_missing_and_counted(columns: Columns) -> None:
    encoder = TableEncoder.fit(columns)
    wrong: Columns = {"age": texts(["forty", None]), "source": np.array([3.0, np.nan])}
    assert np.isnan(encoder.trees(wrong)).all()
    assert encoder.unseen(wrong) == {"age": 1, "source": 1}


def test_the_most_frequent_levels_are_kept_up_to_the_limit() -> None:
    values = [f"l{i}" for i in range(20) for _ in range(10 + i)]
    encoder = TableEncoder.fit({"x": texts(list(values))}, max_levels=3)
    codes = encoder.trees({"x": texts(["l19", "l18", "l17", "l16"])})[:, 0]
    assert codes.tolist() == [0, 1, 2, 3]


def test_weights_move_the_mean_but_not_the_counts() -> None:
    x = np.repeat([0.0, 10.0], 50)
    weight = np.repeat([1.0, 3.0], 50)
    fitted = TableEncoder.fit({"x": x}, weight=weight).columns[0]
    assert isinstance(fitted, NumericColumn)
    assert fitted.mean == pytest.approx(7.5)
    assert fitted.scale == pytest.approx(np.sqrt(18.75))


def test_state_is_json_and_rebuilds_an_equal_encoder(columns: Columns) -> None:
    encoder = TableEncoder.fit(columns)
    again = TableEncoder.from_state(json.loads(json.dumps(encoder.to_state())))
    assert again == encoder
    assert again.linear(columns).tobytes() == encoder.linear(columns).tobytes()


def test_no_column_that_varies_leaves_an_empty_linear_matrix() -> None:
    encoder = TableEncoder.fit({"x": np.ones(5), "gone": np.full(5, np.nan)})
    assert encoder.linear({"x": np.array([7.0])}).shape == (1, 0)
    assert encoder.trees({"x": np.array([7.0])}).tolist()[0][0] == 7.0


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({}, "0 rows"),
        ({"x": np.empty(0)}, "0 rows"),
        ({"x": np.ones(2), "y": np.ones(3)}, "'y': 3"),
    ],
)
def test_refusals_name_what_was_seen(columns: Columns, says: str) -> None:
    with pytest.raises(EncodingError, match=says):
        TableEncoder.fit(columns)
    with pytest.raises(EncodingError, match="one weight >= 0 per row"):
        TableEncoder.fit({"x": np.ones(2)}, weight=np.zeros(2))


def test_row_count_ignores_absent_columns() -> None:
    assert row_count({"x": texts(["a", "b"])}) == 2
    assert row_count({}) == 0
