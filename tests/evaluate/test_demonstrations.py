import json
import tracemalloc

import numpy as np
import pytest

from sporeprint.errors import RecipeError, SampleError, StoreError
from sporeprint.evaluate.demonstrations import Demonstration, Template, demonstrations, write_jsonl

# On a line; the query stands at 0. By distance: 2 (a), 0 (a), 4 (a), 1 (b), 3 (c), 5 (b).
PLACES = np.array([[2.0], [-4.0], [1.0], [5.0], [3.0], [-6.0]])
TEXTS = ["two", "minus four", "one", "five", "three", "minus six"]
LABELS = ["a", "b", "a", "c", "a", "b"]
TAGS = Template(example="{text}={label};", query="{text}=")


def ask(k=3, place=0.0, text="zero", **options):
    (shown,) = demonstrations(PLACES, TEXTS, LABELS, [[place]], [text], k=k, **{"template": TAGS, **options})
    return shown


def test_the_default_prompt_shows_the_nearest_last():
    shown = ask(k=2, template=None)
    assert shown.prompt == "Text: two\nLabel: a\n\nText: one\nLabel: a\n\nText: zero\nLabel:"
    assert shown == Demonstration("zero", shown.prompt, (0, 2), ("a", "a"), (2.0, 1.0), 0)


def test_eight_are_shown_by_default():
    train = np.arange(20.0)[:, None]
    (shown,) = demonstrations(train, [f"t{row}" for row in range(20)], [0] * 20, [[0.0]], ["q"])
    assert shown.rows == (7, 6, 5, 4, 3, 2, 1, 0)


@pytest.mark.parametrize(
    ("k", "rows"), [(1, (2,)), (3, (2, 0, 4)), (5, (2, 0, 4, 1, 3)), (6, (2, 0, 4, 1, 3, 5)), (99, (2, 0, 4, 1, 3, 5))]
)
def test_nearest_takes_whatever_class_and_all_rows_where_they_are_few(k, rows):
    assert ask(k, order="nearest_first").rows == rows
    assert ask(k).rows == rows[::-1]


@pytest.mark.parametrize(
    ("k", "rows"),
    [
        (1, (2,)),
        (2, (2, 1)),  # the nearest of a, then of b, which is nearer than c's
        (3, (2, 1, 3)),  # one of each, nearest first
        (4, (2, 0, 1, 3)),  # the second of a is at 2, of b at 6
        (5, (2, 0, 1, 3, 5)),  # c has no second
        (6, (2, 0, 4, 1, 3, 5)),
        (99, (2, 0, 4, 1, 3, 5)),
    ],
)
def test_balanced_goes_round_the_classes(k, rows):
    shown = ask(k, choose="balanced", order="nearest_first")
    assert shown.rows == rows
    assert shown.distances == tuple(abs(float(PLACES[row, 0])) for row in rows)


def test_balanced_takes_a_far_class_before_the_second_of_a_near_one():
    train, labels = [[9.0], [1.0], [2.0], [1.5], [2.5]], ["c", "a", "a", "b", "b"]
    (shown,) = demonstrations(train, list("vwxyz"), labels, [[0.0]], ["q"], 4, "balanced", "nearest_first")
    assert shown.rows == (1, 3, 2, 0)  # the last place goes to a's second, at 2, not to b's, at 2.5


def test_prompts_labels_and_distances_stand_in_the_same_order():
    shown = ask(3, choose="balanced")
    assert shown.prompt == "five=c;minus four=b;one=a;zero="
    assert (shown.rows, shown.labels, shown.distances) == ((3, 1, 2), ("c", "b", "a"), (5.0, 4.0, 1.0))
    assert ask(3, choose="balanced", order="nearest_first").prompt == "one=a;minus four=b;five=c;zero="


def test_equal_distances_go_by_the_text_in_whatever_order_the_rows_are():
    train, labels = [[1.0], [-1.0], [1.0], [-1.0], [2.0]], ["b", "a", "a", "b", "a"]
    for choose in ("nearest", "balanced"):
        for k in (1, 2, 3, 4):
            (shown,) = demonstrations(train, list("vwxyz"), labels, [[0.0]], ["q"], k, choose, "nearest_first")
            assert shown.rows == tuple(range(k))
            (shown,) = demonstrations(train, list("vwxyz"), labels, [[0.0]], ["q"], k, choose, "nearest_last")
            assert shown.rows == tuple(range(k))[::-1]
            turned = demonstrations(train[::-1], list("zyxwv"), labels[::-1], [[0.0]], ["q"], k, choose, "nearest_last")
            assert turned[0].prompt == shown.prompt


def test_equal_rows_are_at_distance_zero_and_in_order_far_from_the_origin():
    row = np.random.default_rng(0).standard_normal(384).astype(np.float32) * 1000
    train = np.stack([row + 1, *[row] * 40, row + 1])
    (shown,) = demonstrations(
        train, [f"t{at:02}" for at in range(42)], [0] * 42, row[None], ["q"], 41, order="nearest_first"
    )
    assert shown.rows == (*range(1, 41), 0)
    assert shown.distances[:40] == (0.0,) * 40


@pytest.mark.parametrize("choose", ["nearest", "balanced"])
def test_distances_far_below_the_rounding_of_the_norms_are_told_apart(choose):
    # Squared, they are 1e-9 to 8e-7; the squared norms are 4e8, whose rounding is 6e-8.
    for seed in range(20):
        rng = np.random.default_rng(seed)
        query, steps = rng.standard_normal(384) * 1000, rng.permutation(30)
        train = query + rng.choice([-1, 1], (30, 384)) * (steps[:, None] * 3e-5 / 384**0.5)
        (shown,) = demonstrations(
            train, [f"t{row}" for row in range(30)], ["a"] * 30, query[None], ["q"], 5, choose, "nearest_first"
        )
        assert steps[list(shown.rows)].tolist() == [0, 1, 2, 3, 4]
        assert shown.distances == pytest.approx([0, 3e-5, 6e-5, 9e-5, 12e-5], abs=1e-9)


def slow(train, labels, query, k, choose, metric):
    """Rows by distance; for balanced, passes over the classes that take each class's nearest row left."""
    a, b = train.astype(np.float64), query.astype(np.float64)
    if metric == "cosine":
        distances = [1 - float(row @ b) / float(np.linalg.norm(row) * np.linalg.norm(b)) for row in a]
    else:
        distances = [float(np.linalg.norm(row - b)) for row in a]
    left = sorted(range(len(a)), key=lambda row: distances[row])
    taken = left[:k] if choose == "nearest" else []
    while len(taken) < min(k, len(a)):
        message = set()
        for row in list(left):
            if labels[row] not in message and len(taken) < k:
                message.add(labels[row])
                taken.append(row)
                left.remove(row)
    return sorted(taken, key=lambda row: distances[row]), sorted(distances[row] for row in taken)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("choose", ["nearest", "balanced"])
@pytest.mark.parametrize("k", [1, 2, 7, 11, 50])
def test_a_slow_search_finds_the_same(k, choose, metric, dtype):
    rng = np.random.default_rng(k)
    train, test = (rng.standard_normal((rows, 7)).astype(dtype) for rows in (50, 12))
    labels = rng.choice(5, 50, p=[0.6, 0.2, 0.1, 0.05, 0.05])
    texts = [f"t{row}" for row in range(50)]
    prompts = demonstrations(
        train, texts, labels, test, [f"q{row}" for row in range(12)], k, choose, "nearest_first", metric
    )
    for shown, query in zip(prompts, test, strict=True):
        rows, distances = slow(train, labels, query, k, choose, metric)
        assert list(shown.rows) == rows
        assert shown.distances == pytest.approx(distances, abs=1e-6)


@pytest.mark.parametrize("choose", ["nearest", "balanced"])
@pytest.mark.parametrize("k", [1, 4, 13, 80])
def test_a_slow_search_finds_the_same_among_the_rows_with_another_text(k, choose):
    rng = np.random.default_rng(k)
    train, test = rng.standard_normal((60, 5)), rng.standard_normal((25, 5))
    labels = rng.choice(7, 60, p=[0.5, 0.2, 0.1, 0.05, 0.05, 0.05, 0.05])
    texts = [f"t{min(number, 9)}" for number in rng.integers(0, 25, 60)]  # t9 is that of most rows
    queries = [f"t{number % 12}" for number in range(25)]
    prompts = demonstrations(train, texts, labels, test, queries, k, choose, "nearest_first")
    for prompt, query in zip(prompts, test, strict=True):
        others = np.array([row for row, text in enumerate(texts) if text != prompt.query])
        rows, _ = slow(train[others], labels[others], query, k, choose, "euclidean")
        assert list(prompt.rows) == others[rows].tolist()
        assert prompt.left_out == 60 - len(others)


def test_a_query_does_not_depend_on_the_others(monkeypatch):
    rng = np.random.default_rng(0)
    train, test = rng.standard_normal((300, 5)), rng.standard_normal((40, 5))
    texts, queries = [f"t{row}" for row in range(300)], [f"q{row}" for row in range(40)]
    labels = rng.integers(0, 4, 300)
    whole = demonstrations(train, texts, labels, test, queries, choose="balanced")
    monkeypatch.setattr("sporeprint.evaluate.demonstrations._NEIGHBOURS", 33)  # four queries at a time
    assert demonstrations(train, texts, labels, test, queries, choose="balanced") == whole
    assert demonstrations(train, texts, labels, test[7:8], queries[7:8], choose="balanced") == whole[7:8]


def test_memory_is_bounded():
    rows = np.random.default_rng(0).standard_normal((8000, 4)).astype(np.float32)
    texts = [f"t{row}" for row in range(8000)]
    demonstrations(rows[:9], texts[:9], [0] * 9, rows[:2], texts[:2], k=1)  # imports are not counted
    tracemalloc.start()
    demonstrations(rows, texts, [0] * 8000, rows, texts, k=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 128e6  # all distances at once: 8,000 x 8,000 x 8 bytes = 512 MB


def test_cosine_reads_directions_only():
    train = [[10.0, 0.0], [0.0, 1.0], [-3.0, 0.0], [1.0, 1.0]]
    (shown,) = demonstrations(
        train, list("wxyz"), list("abcd"), [[1e-30, 0.0]], ["q"], 4, order="nearest_first", metric="cosine"
    )
    assert shown.rows == (0, 3, 1, 2)
    assert shown.distances == pytest.approx((0.0, 1 - 0.5**0.5, 1.0, 2.0))


def test_rows_with_the_querys_text_are_left_out_and_counted():
    train, texts = [[0.0], [0.0], [1.0], [2.0]], ["same", "Same", "other", "same"]
    (shown,) = demonstrations(train, texts, list("abcd"), [[0.0]], ["same"], 3, order="nearest_first", template=TAGS)
    assert (shown.rows, shown.left_out) == ((1, 2), 2)  # "Same" is another text
    assert shown.prompt == "Same=b;other=c;same="
    shown, other = demonstrations(
        train, texts, list("abcd"), [[0.0], [0.0]], ["same", "new"], 3, order="nearest_first", exclude_identical=False
    )
    assert (shown.rows, shown.left_out) == (other.rows, other.left_out) == ((1, 0, 2), 0)


def test_balanced_passes_over_a_class_whose_rows_are_all_left_out():
    train, texts = [[0.0], [1.0], [2.0], [3.0]], ["same", "v", "w", "x"]
    (shown,) = demonstrations(train, texts, list("abbc"), [[0.0]], ["same"], 3, "balanced", "nearest_first")
    assert (shown.rows, shown.left_out) == ((1, 2, 3), 1)


def test_where_every_row_is_left_out_the_query_stands_alone():
    for choose in ("nearest", "balanced"):
        (shown,) = demonstrations([[1.0]], ["same"], ["a"], [[0.0]], ["same"], choose=choose, template=TAGS)
        assert shown == Demonstration("same", "same=", (), (), (), 1)


def test_braces_and_fields_in_texts_and_labels_come_out_as_they_are():
    texts = ["{label}", "{text.__class__} {0} }{ {{}}"]
    (shown,) = demonstrations([[1.0], [2.0]], texts, ["{text}", "%s"], [[0.0]], ["{labels}{"], template=TAGS)
    assert shown.prompt == "{text.__class__} {0} }{ {{}}=%s;{label}={text};{labels}{="


def test_doubled_braces_of_a_template_are_single_in_the_prompt():
    template = Template(example='{{"text": "{text}", "label": "{label}"}}\n', query='{{"text": "{text}", "label": "')
    assert ask(1, template=template).prompt == '{"text": "one", "label": "a"}\n{"text": "zero", "label": "'


def test_the_header_stands_once_and_names_every_class():
    template = Template(header="One of: {labels}.\n", example="{text}={label};", query="{text} ({labels})=")
    assert ask(2, template=template).prompt == "One of: a, b, c.\ntwo=a;one=a;zero (a, b, c)="


@pytest.mark.parametrize(
    ("part", "template", "message"),
    [
        ("example", "{text.__class__} {label}", "the field {text.__class__}; known: {text}, {label}, {labels}"),
        ("example", "{text[0]} {label}", "the field {text[0]}"),
        ("example", "{text!r} {label}", "the field {text!r}"),
        ("example", "{text:>99999999} {label}", "the field {text:>99999999}"),
        ("example", "{text:{label}}", "the field {text:{label}}"),
        ("example", "{} {label}", "the field {}"),
        ("example", "{0} {label}", "the field {0}"),
        ("example", "{txet} {label}", "the field {txet}"),
        ("example", "{text} {label", "twice"),
        ("example", "{text} } {label}", "twice"),
        ("example", "{text}", "example has no {label}"),
        ("example", "{label}", "example has no {text}"),
        ("query", "Label:", "query has no {text}"),
        ("query", "{text} {label}", "query has the field {label}; known: {text}, {labels}"),
        ("header", "{text}", "header has the field {text}; known: {labels}"),
        ("header", None, "header is a NoneType; expected a str"),
        ("query", ["{text}"], "query is a list; expected a str"),
    ],
)
def test_templates_with_other_fields_are_refused_at_construction(part, template, message):
    with pytest.raises(RecipeError) as caught:
        Template(**{part: template})
    assert message in str(caught.value)


def written(folder, text):
    path = folder / "prompt.txt"
    path.write_bytes(text.encode())
    return path


def test_a_template_file_has_example_and_query_with_a_line_between(tmp_path):
    path = written(tmp_path, "Text: {text}\nLabel: {label}\n\n---\nText: {text}\nLabel:\n")
    assert Template.from_file(path) == Template.from_file(str(path)) == Template()


def test_the_query_of_a_template_file_loses_one_line_end_and_no_space(tmp_path):
    assert Template.from_file(written(tmp_path, "{text} {label}\n---\n{text}: \n\n")).query == "{text}: \n"
    assert Template.from_file(written(tmp_path, "{text} {label}\n---\n{text}: ")).query == "{text}: "


def test_a_template_file_may_begin_with_a_header(tmp_path):
    text = "\ufeffOne of {labels}.\r\n\r\n--- \r\n{text} --- {label}\r\n----\r\n---\r\n{text} ---"
    assert Template.from_file(written(tmp_path, text)) == Template(
        header="One of {labels}.\n\n", example="{text} --- {label}\n----\n", query="{text} ---"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{text} {label}", "'prompt.txt' has 0 lines '---'"),
        ("a\n---\nb\n---\nc\n---\nd", "'prompt.txt' has 3 lines '---'"),
        ("---\n{text}", "example has no {text}"),
        ("", "cannot be read: 'prompt.txt': empty"),
    ],
)
def test_other_template_files_are_refused(tmp_path, text, message):
    with pytest.raises(RecipeError) as caught:
        Template.from_file(written(tmp_path, text))
    assert message in str(caught.value)


def test_a_missing_template_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"there is no file 'gone.txt'"):
        Template.from_file(tmp_path / "gone.txt")


@pytest.mark.parametrize("names", [["neg", "neutral", "pos"], {0: "neg", 1: "neutral", 2: "pos"}])
@pytest.mark.parametrize("labels", [[2, 0], np.array([2, 0], dtype=np.uint8), [2.0, 0.0]])
def test_numbers_are_shown_by_their_names(labels, names):
    template = Template(header="{labels}: ", example="{text}={label};", query="{text}=")
    (shown,) = demonstrations([[1.0], [2.0]], ["t", "u"], labels, [[0.0]], ["q"], template=template, label_names=names)
    assert shown.prompt == "neg, neutral, pos: u=neg;t=pos;q="
    assert shown.labels == ("neg", "pos")


def test_without_names_numbers_are_shown_as_they_are():
    template = Template(header="{labels}: ", example="{text}={label};", query="{text}=")
    (shown,) = demonstrations([[1.0], [2.0]], ["t", "u"], [10, 9], [[0.0]], ["q"], template=template)
    assert shown.prompt == "9, 10: u=9;t=10;q="


def test_balanced_counts_classes_by_the_name_that_is_shown():
    train, texts = [[1.0], [2.0], [3.0]], ["t", "u", "v"]
    (shown,) = demonstrations(
        train, texts, [0, 1, 2], [[0.0]], ["q"], 2, "balanced", label_names=["animal", "animal", "plant"]
    )
    assert shown.labels == ("plant", "animal")


def test_texts_may_be_bytes_files_and_arrays(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("from a file", encoding="utf-8")
    for texts in ([path, b"bytes"], np.array([path, "bytes"], dtype=object)):
        (shown,) = demonstrations([[1.0], [2.0]], texts, ["a", "b"], [[0.0]], [b"q"], template=TAGS)
        assert shown.prompt == "bytes=b;from a file=a;q="


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k=0; expected a positive integer"),
        ({"k": 2.0}, "k=2.0; expected"),
        ({"k": True}, "k=True; expected"),
        ({"choose": "random"}, "choose='random'; expected one of: nearest, balanced"),
        ({"order": "last"}, "order='last'; expected one of: nearest_last, nearest_first"),
        ({"metric": "dot"}, "metric='dot'; expected one of: euclidean, cosine"),
        ({"train_features": [[0.0], [float("nan")]]}, "1 of 2 train rows are NaN"),
        ({"features": [[float("inf")]]}, "1 of 1 query rows are NaN or infinite"),
        ({"features": [[0.0, 1.0]]}, "train features are 1 wide, query features 2"),
        ({"features": [[1e300]]}, "too large for distances"),
        ({"features": [0.0]}, "query features have shape (1,)"),
        ({"train_texts": ["t"]}, "1 train texts for 2 rows"),
        ({"texts": ["q", "r"]}, "2 query texts for 1 rows"),
        ({"texts": "q"}, "query texts is a str"),
        ({"train_texts": ["t", ""]}, "train text 1: this text: empty"),
        ({"texts": [3]}, "query text 0: no text: got a number"),
        ({"train_labels": ["a"]}, "train labels have shape (1,) for 2 rows"),
        ({"train_labels": ["a", None]}, "1 of 2 train labels are missing"),
        ({"train_labels": [1.0, float("nan")]}, "1 of 2 train labels are NaN"),
        ({"label_names": ["a"]}, "label 1 has no name; label_names has 1, for 0; add it"),
        ({"label_names": "ab"}, "label_names='ab'; expected a list"),
        ({"train_labels": ["a", "b"], "label_names": ["a", "b"]}, "or leave label_names out"),
        ({"metric": "cosine", "features": [[0.0]]}, "1 of 1 query rows are all 0"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    given = {"train_features": [[1.0], [2.0]], "train_texts": ["t", "u"], "train_labels": [0, 1]}
    given |= {"features": [[0.5]], "texts": ["q"]}
    assert demonstrations(**given)
    with pytest.raises(SampleError) as caught:
        demonstrations(**given | change)
    assert message in str(caught.value)


def test_the_inputs_are_left_as_they_were():
    train, test = PLACES.copy(), np.array([[1.0]])
    for metric in ("euclidean", "cosine"):
        demonstrations(train, TEXTS, LABELS, test, ["one"], metric=metric)
    np.testing.assert_array_equal(train, PLACES)
    np.testing.assert_array_equal(test, [[1.0]])


def test_jsonl_holds_one_object_a_line_that_reads_back(tmp_path):
    texts = ["line\nbreak", "naïve \u2028 \x85 \x1c 你好"]
    prompts = demonstrations([[1.0], [2.0]], texts, ["a", "b"], [[0.0], [3.0]], ['"q"', "q\u2029"], template=TAGS)
    path = tmp_path / "prompts.jsonl"
    write_jsonl(prompts, str(path))
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    assert "你好" in lines[0]
    assert [json.loads(line) for line in lines] == [shown.to_json() for shown in prompts]
    assert json.loads(lines[0]) == {
        "query": '"q"',
        "prompt": f'{texts[1]}=b;{texts[0]}=a;"q"=',
        "rows": [1, 0],
        "labels": ["b", "a"],
        "distances": [2.0, 1.0],
        "left_out": 0,
    }


def test_jsonl_that_cannot_be_written_leaves_what_was_there(tmp_path):
    prompts = [ask(1)]
    (tmp_path / "taken").mkdir()
    with pytest.raises(StoreError, match="was not written"):
        write_jsonl(prompts, tmp_path / "taken")
    path = tmp_path / "prompts.jsonl"
    path.write_text("before")

    def broken():
        yield prompts[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(broken(), path)
    assert path.read_text() == "before"
    assert sorted(shown.name for shown in tmp_path.iterdir()) == ["prompts.jsonl", "taken"]
