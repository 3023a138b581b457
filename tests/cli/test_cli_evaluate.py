"""The commands that evaluate, on stores made by hand: points of a circle, whose neighbours are known."""

import json
import re
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from small_stores import circle, store_of
from sporeprint import Store, cluster, knn, multilabel, probe, regress, retrieve, select
from sporeprint.cli.console import Working
from sporeprint.data.sources import ListSource, open_source
from sporeprint.features.combine import NAMED, Combination
from sporeprint.store.writer import StoreWriter

TRAIN, TEST = [0.0, 5.0, 90.0, 95.0], [1.0, 4.0, 91.0, 94.0]
PLACES = ["low", "low", "high", "high"]
TOPICS = [["sea"], ["sea", "sun"], ["sun"], []]
HEIGHTS = [0.0, 1.0, 10.0, 11.0]
BLOCKS = ("embedding", "cls-2", "kl")


def save(folder, name, labels, degrees, blocks=("embedding",)):
    """A store of one point a label; other blocks than the embedding are points that say nothing."""
    names = [f"{name}{at}" for at in range(len(labels))]
    source = ListSource(names, labels=labels, ids=names)
    rng = np.random.default_rng(len(name))
    points = {block: circle(degrees if block == "embedding" else rng.uniform(0, 360, len(labels))) for block in blocks}
    return store_of(folder / name, source, points)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Stores a and b with classes, topics-a and -b with lists, heights-a and -b with numbers, and odd ones."""
    folder = tmp_path_factory.mktemp("stores")
    for name, degrees in (("a", TRAIN), ("b", TEST)):
        save(folder, name, PLACES, degrees, BLOCKS)
        save(folder, f"topics-{name}", TOPICS, degrees)
        save(folder, f"heights-{name}", HEIGHTS, degrees)
        save(folder, f"pairs-{name}", [[height, -height] for height in HEIGHTS], degrees)
    save(folder, "none", [None] * 4, TEST, BLOCKS)
    save(folder, "one", ["low"] * 4, TRAIN)
    save(folder, "single", ["low"], [0.0])
    plan = {**Store.open(folder / "b").plan, "recipe": {"seed": 1}}
    with StoreWriter(folder / "other", plan) as writer:
        writer.write_shard(0, ["x"], ["low"], {"embedding": circle([0.0])}, [], {})
        info = {"embedding": {"dim": 2, "family": "embedding", "views": "whole", "passes": 1}}
        writer.commit(blocks=info, label_names=None, cost={})
    return folder


def entries(run, *words):
    status, out, err = run(*words, "--json")
    assert (status, err) == (0, "")
    return {entry["name"]: entry for entry in json.loads(out)["entries"]}


def as_json(result):
    return json.loads(json.dumps(result.to_json()))


def rows_of(folder, name, combination=None, of="a"):
    """Features as the library makes them, fitted on the store `of`."""
    combiner = (combination or Combination(("embedding",))).fit(Store.open(folder / of).blocks())
    return combiner.transform(Store.open(folder / name).blocks())


# Each command


def test_probe_gives_what_the_function_gives_for_each_way_of_joining(run, data):
    results = entries(run, "probe", data / "a", data / "b")
    assert list(results) == ["embedding", "embedding, white", "paper", "decorrelated"]  # loo chose one of them
    for name, joining in (("embedding", None), ("paper", NAMED["paper"]), ("decorrelated", NAMED["decorrelated"])):
        expected = probe(rows_of(data, "a", joining), PLACES, rows_of(data, "b", joining), PLACES)
        assert results[name]["results"]["probe"] == as_json(expected)
    assert results["embedding"]["results"]["probe"]["value"] == 1.0
    assert (results["paper"]["blocks"], results["paper"]["width"], results["paper"]["passes"]) == (
        ["embedding", "kl"],
        4,
        1,
    )


def test_few_shot_draws_are_shown_with_their_spread(run, data):
    degrees = [*np.linspace(0, 40, 6), *np.linspace(20, 60, 6)]
    save(data, "many", ["low"] * 6 + ["high"] * 6, degrees)
    save(data, "asked", ["low"] * 6 + ["high"] * 6, [angle + 1 for angle in degrees])
    features, others = rows_of(data, "many", of="many"), rows_of(data, "asked", of="many")
    labels = Store.open(data / "many").labels
    words = [
        data / "many",
        data / "asked",
        "--features",
        "embedding",
        "--shots",
        "2",
        "--draws",
        "4",
        "--seed",
        "7",
    ]
    expected = knn(features, labels, others, labels, k=1, shots=2, draws=4, seed=7)
    (entry,) = entries(run, "knn", *words, "--k", "1").values()
    assert entry["results"]["1"] == as_json(expected)
    assert expected.spread > 0
    _, out, _ = run("knn", *words, "--k", "1,auto")
    assert f"{100 * expected.value:.1f} ± {100 * expected.spread:.1f}" in out
    assert "mean and standard deviation of 4 draws of 2 rows a class" in " ".join(out.split())
    (entry,) = entries(run, "probe", *words).values()
    assert entry["results"]["probe"] == as_json(probe(features, labels, others, labels, shots=2, draws=4, seed=7))


def test_knn_takes_metric_and_vote(run, data):
    way = {"metric": "cosine", "vote": "softmax", "temperature": 0.5}
    words = ["--metric", "cosine", "--vote", "softmax", "--temperature", "0.5", "--k", "3", "--features", "embedding"]
    (entry,) = entries(run, "knn", data / "a", data / "b", *words).values()
    expected = knn(rows_of(data, "a"), PLACES, rows_of(data, "b"), PLACES, k=3, **way)
    assert entry["results"]["3"] == as_json(expected)
    assert entry["results"]["3"]["settings"]["temperature"] == 0.5


def save_halves(folder):
    """Stores c and d, whose embedding says nothing and whose layer says everything; returns their labels."""
    degrees = np.random.default_rng(0).uniform(0, 360, 24)
    places = ["low", "high"] * 12
    for name in ("c", "d"):
        if not (folder / name).exists():
            source = ListSource([f"{name}{at}" for at in range(24)], labels=places)
            second = [at * 2.0 if place == "low" else 180 + at * 2.0 for at, place in enumerate(places)]
            store_of(folder / name, source, {"embedding": circle(degrees), "cls-2": circle(second)})
    return places


def test_the_table_of_knn_ends_with_the_decorrelated_and_what_loo_chose(run, data):
    places = save_halves(data)
    status, out, _ = run("knn", data / "c", data / "d", "--k", "1", "--json")
    assert status == 0
    body = json.loads(out)
    chosen = select(Store.open(data / "c").blocks(), places, predictors=("kNN",))
    assert chosen.name not in ("embedding", "embedding, white")
    assert [entry["name"] for entry in body["entries"]][-2:] == ["decorrelated", f"loo: {chosen.name}"]
    assert body["loo"] == as_json(chosen)
    (scores,) = entries(run, "knn", data / "c", data / "d", "--k", "1", "--combination", "loo", "--pca", "3").values()
    assert (scores["name"], scores["width"]) == (f"loo: {chosen.name}", 3)


def table(out):
    """The rows of the table in a printed answer: {name: cells}, by the head's names."""
    lines = out.split("\n")
    (rule,) = [at for at, line in enumerate(lines) if line.startswith("---")]
    names = re.split(r"  +", lines[rule - 1].strip())
    rows = [
        re.split(r"  +", line.strip()) for line in lines[rule + 1 : lines.index("", rule)] if re.search(r"  +\d", line)
    ]
    return {row[0].removeprefix("control: "): dict(zip(names, row, strict=False)) for row in rows}


@pytest.mark.parametrize(
    "words", [("knn", "c", "d"), ("knn", "c", "d", "--k", "3"), ("probe", "c", "d"), ("retrieve", "d", "c")]
)
def test_a_command_ends_in_no_gain_that_its_own_table_does_not_show(run, data, words):
    save_halves(data)
    status, out, _ = run(words[0], *(data / word if word in "cd" else word for word in words[1:]))
    assert status == 0
    first = out.splitlines()[0]
    assert len(first.split()) <= 25
    rows = table(out + "\n")
    (chosen,) = [row for name, row in rows.items() if name.startswith("loo: ")]
    share, gain, base = re.search(r"([\d.]+)%, ([+-][\d.]+) points over the embedding's ([\d.]+)%", first).groups()
    assert [*chosen.values()][2:4] == [share, gain]
    assert rows["embedding"][[*chosen][2]] == base
    assert float(gain) == pytest.approx(float(share) - float(base), abs=0.11)
    assert "leave-one-out 9" not in out
    for figure in re.findall(r"[+-]\d+\.\d", out):
        assert figure in [row.get("gain") for row in rows.values()]


def test_where_nothing_is_surely_better_the_embedding_is_the_answer(run, data):
    degrees, places = np.random.default_rng(0).uniform(0, 360, 24), ["low", "high"] * 12
    for name in ("e", "f"):
        source = ListSource([f"{name}{at}" for at in range(24)], labels=places)
        store_of(data / name, source, {"embedding": circle(degrees), "cls-2": circle(degrees)})
    out = run("probe", data / "e", data / "f")[1]
    assert re.match(r"The embedding alone has top-1 [\d.]+%; leave-one-out on the training rows finds nothing", out)


def test_a_table_that_nothing_chose_from_says_that_its_best_is_picked_by_its_figures(run, data):
    first = run("cluster", data / "a")[1].splitlines()[0]
    assert first == "None of 3 others has more than the embedding: matched accuracy 100.0%."


def test_a_table_of_regressions_takes_what_the_training_rows_choose(run, data):
    """The gradient knows each test row from the training rows, and none of these from the others."""
    degrees, noise = np.linspace(0, 60, 13), np.random.default_rng(1).uniform(0, 360, 13)
    for name in ("good-a", "good-b"):
        source = ListSource([f"{name}{at}" for at in range(13)], labels=np.sin(np.deg2rad(degrees)).tolist())
        store_of(data / name, source, {"embedding": circle(degrees + 9 * (name == "good-b")), "kl": circle(noise)})
    words = ("regress", data / "good-a", data / "good-b", "--k", "1")
    status, out, _ = run(*words, "--json")
    body = json.loads(out)
    left = {entry["name"]: entry["results"]["regress"]["leave_one_out_value"] for entry in body["entries"]}
    test = {entry["name"]: entry["results"]["regress"]["value"] for entry in body["entries"]}
    assert (status, body["chosen"], max(left, key=left.get)) == (0, "embedding", "embedding")
    assert max(test, key=test.get) == "paper"
    shown = run(*words)[1]
    assert shown.startswith(
        f"The embedding alone has R^2 {test['embedding']:.3f} with kNN; leave-one-out on the training"
    )
    rows = table(shown + "\n")
    figures = rows["embedding (chosen)"]
    assert (figures["leave-one-out"], figures["R^2"], figures["method"]) == (
        f"{left['embedding']:.3f}", f"{test['embedding']:.3f}", "kNN",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "ridge", "--k", "3"), "--k is for the nearest neighbours"),
        (("--method", "ridge", "--vote", "distance"), "--vote is for the nearest neighbours"),
        (("--method", "knn", "--standardise"), "--standardise is for ridge, and --method knn for the nearest"),
        (("--metric", "cosine", "--standardise"), "--standardise is for ridge, and --metric for the nearest"),
    ],
)
def test_options_of_the_other_method_are_refused(run, data, words, said):
    status, _, err = run("regress", data / "heights-a", data / "heights-b", *words)
    assert (status, said in err) == (2, True), err


def test_lists_of_labels_are_judged_by_average_precision(run, data):
    stores = [data / "topics-a", data / "topics-b"]
    sets = (
        rows_of(data, "topics-a", of="topics-a"),
        TOPICS,
        rows_of(data, "topics-b", of="topics-a"),
        TOPICS,
    )
    results = entries(run, "knn", *stores, "--k", "1,auto")
    assert results["embedding"]["results"]["1"] == as_json(multilabel(*sets, k=1))
    assert results["embedding"]["results"]["1"]["value"] == 1.0  # the nearest row has the very same topics
    assert entries(run, "probe", *stores)["embedding"]["results"]["probe"] == as_json(multilabel(*sets, method="probe"))
    _, out, _ = run("knn", *stores)
    assert "kNN: b, 4 training rows, 4 test rows, 2 labels, several a row" in out
    assert "mAP %" in out
    assert "micro %" in run("knn", *stores, "--all")[1]
    assert "mAP" in run("probe", *stores)[1]


def test_clusters_of_one_store_are_scored_by_its_labels(run, data):
    results = entries(run, "cluster", data / "a", "--starts", "2", "--clusters", "2")
    assert list(results) == ["embedding", "embedding, white", "paper", "decorrelated"]
    assert results["embedding"]["results"]["cluster"] == as_json(
        cluster(rows_of(data, "a"), PLACES, clusters=2, starts=2)
    )
    assert results["embedding"]["results"]["cluster"]["value"] == 1.0
    assert "100.0 ± 0.0" in run("cluster", data / "a")[1]


def test_retrieval_ranks_the_database_or_the_other_rows(run, data):
    results = entries(run, "retrieve", data / "b", data / "a", "--k", "1,3")
    expected = retrieve(rows_of(data, "b"), PLACES, rows_of(data, "a"), PLACES, ks=(1, 3))
    assert results["embedding"]["results"]["retrieve"] == as_json(expected)
    assert results["embedding"]["results"]["retrieve"]["value"] == 1.0  # both rows of the place come first
    assert results["embedding"]["results"]["retrieve"]["precision_at"] == {"1": 1.0, "3": pytest.approx(2 / 3)}
    white = Combination(("embedding",), "auto")  # fitted on the database
    (entry,) = entries(run, "retrieve", data / "b", data / "a", "--features", "embedding", "--whiten", "auto").values()
    assert entry["results"]["retrieve"] == as_json(
        retrieve(rows_of(data, "b", white), PLACES, rows_of(data, "a", white), PLACES)
    )
    alone = entries(run, "retrieve", data / "b")["embedding"]["results"]["retrieve"]
    assert alone == as_json(retrieve(rows_of(data, "b", of="b"), PLACES))
    status, out, _ = run("retrieve", data / "b", data / "a")
    assert (status, "4 database rows, 4 queries" in out) == (0, True)
    assert "mP@1 %" in out
    assert "mP@10 %" in run("retrieve", data / "b", data / "a", "--all")[1]
    assert "below 100% where a query has fewer than k relevant rows" in out


def test_the_revisited_protocol_knows_rows_by_their_ids(run, data):
    source = ListSource(["x", "y", "z"], ids=["three.jpg", "far/one.jpg", "two.jpg"])
    store_of(data / "base", source, {"embedding": circle([80.0, 0.0, 10.0])})
    store_of(data / "query", ListSource(["q"], ids=["q.jpg"]), {"embedding": circle([2.0])})
    entry = {"easy": [1], "hard": [2], "junk": [0]}  # of one, two, three: easy is second, hard third, junk first
    truth = {"imlist": ["one", "two", "three"], "qimlist": ["q"], "gnd": [entry]}
    (data / "gnd.json").write_text(json.dumps(truth))
    words = ["retrieve", data / "query", data / "base", "--ground-truth", data / "gnd.json"]
    (scores,) = entries(run, *words, "--features", "embedding").values()
    assert scores["results"]["revisited"]["mean_precision"] == {"easy": 1.0, "medium": 1.0, "hard": 1.0}
    status, out, _ = run(*words)
    assert (status, "medium mAP" in out, "below 100%" in out) == (0, True, False)


def test_images_without_ids_are_in_the_order_of_the_ground_truth(run, tmp_path):
    degrees = {"base": [80.0, 0.0], "query": [2.0]}
    for name, angles in degrees.items():
        pq.write_table(pa.table({"text": [f"{name} {at}" for at in range(len(angles))]}), tmp_path / f"{name}.parquet")
        source = open_source(tmp_path / f"{name}.parquet", modality="text")
        store_of(tmp_path / name, source, {"embedding": circle(angles)})
    # The easy one is second to a row that is no junk: the area under precision over recall is (0 + 1/2) / 2.
    truth = {"imlist": ["a", "b"], "qimlist": ["q"], "gnd": [{"easy": [0], "hard": [], "junk": []}]}
    (tmp_path / "gnd.json").write_text(json.dumps(truth))
    words = [tmp_path / "query", tmp_path / "base", "--ground-truth", tmp_path / "gnd.json", "--features", "embedding"]
    status, out, _ = run("retrieve", *words, "--json")
    body = json.loads(out)
    assert (status, body["entries"][0]["results"]["revisited"]["mean_precision"]["easy"]) == (0, 0.25)
    assert body["note"] == "b, gnd.json; without ids, so taken in the order of the ground truth: queries and database"


def test_numbers_are_predicted_by_neighbours_and_by_ridge(run, data):
    stores = [data / "heights-a", data / "heights-b"]
    sets = (
        rows_of(data, "heights-a", of="heights-a"),
        HEIGHTS,
        rows_of(data, "heights-b", of="heights-a"),
        HEIGHTS,
    )
    results = entries(run, "regress", *stores, "--k", "1")
    assert results["embedding"]["results"]["regress"] == as_json(regress(*sets, k=1))
    assert results["embedding"]["results"]["regress"]["value"] == 1.0
    results = entries(run, "regress", *stores, "--method", "ridge")
    assert results["embedding"]["results"]["regress"] == as_json(regress(*sets, method="ridge"))
    status, out, _ = run("regress", *stores)
    assert (status, "R^2" in out, "4 training rows, 4 test rows, 1 target" in out) == (0, True, True)


def test_numbers_of_a_csv_are_predicted_though_they_are_texts_there(run, tmp_path):
    for name, degrees in (("held", TRAIN), ("asked", TEST)):
        lines = ["text,height", *(f"{name} {at},{height + 0.25}" for at, height in enumerate(HEIGHTS))]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
        source = open_source(tmp_path / f"{name}.csv", modality="text", label_column="height")
        store_of(tmp_path / name, source, {"embedding": circle(degrees)})
    assert Store.open(tmp_path / "held").labels.tolist() == ["0.25", "1.25", "10.25", "11.25"]
    status, out, err = run("regress", tmp_path / "held", tmp_path / "asked", "--k", "1", "--json")
    assert (status, err) == (0, "")
    body = json.loads(out)
    assert body["entries"][0]["results"]["regress"]["value"] == 1.0
    assert body["note"] == "b, 4 training rows, 4 test rows, 1 target, its texts read as numbers"


def test_lists_of_numbers_are_several_targets(run, data):
    status, out, _ = run("regress", data / "pairs-a", data / "pairs-b", "--k", "1", "--json")
    body = json.loads(out)
    assert (status, body["entries"][0]["results"]["regress"]["r2"]) == (0, [1.0, 1.0])
    assert body["note"] == "b, 4 training rows, 4 test rows, 2 targets"


def test_analyse_describes_blocks_and_says_which_classes_gain(run, data):
    status, out, err = run("analyse", data / "a", "--json")
    assert (status, err) == (0, "")
    assert list(json.loads(out)["blocks"]) == ["embedding", "cls-2", "kl"]
    status, out, _ = run("analyse", data / "a", "--features", "embedding,layers")
    assert (status, "cls-2" in out, "kl" in out, "Classes" in out) == (0, True, False, False)
    status, out, _ = run("analyse", data / "a", data / "b", "--features", "kl", "--k", "1", "--json")
    changes = {change["label"]: change for change in json.loads(out)["classes"]}
    train, test = (Store.open(data / name).blocks()["kl"] for name in ("a", "b"))
    nearest = np.array(PLACES)[(test @ train.T).argmax(axis=1)]
    for place in ("low", "high"):
        assert changes[place]["before"] == 1.0  # the embedding is right everywhere
        assert changes[place]["after"] == (nearest == np.array(PLACES))[np.array(PLACES) == place].mean()
    status, out, _ = run("analyse", data / "a", data / "b")
    assert (status, "from the embedding to decorrelated" in out) == (0, True)
    assert "Classes by their gain\n" in out


def test_cluster_takes_labels_of_another_column(run, tmp_path):
    columns = {"text": ["a", "b", "c", "d"], "place": PLACES, "side": ["l", "r", "l", "r"]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet", modality="text", label_column="place")
    store_of(tmp_path / "s", source, {"embedding": circle(TRAIN)})
    words = ["cluster", tmp_path / "s", "--features", "embedding", "--label-column", "side"]
    (entry,) = entries(run, *words, "--source", tmp_path / "t.parquet").values()
    assert entry["results"]["cluster"]["value"] == 0.5
    status, _, err = run(*words)
    assert (status, "--label-column needs --source" in err) == (2, True)


def test_retrieval_takes_labels_of_another_column(run, tmp_path):
    for name, degrees in (("held", TRAIN), ("asked", TEST)):
        columns = {"text": [f"{name} {at}" for at in range(4)], "place": PLACES, "side": ["l", "r", "r", "l"]}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        source = open_source(tmp_path / f"{name}.parquet", modality="text", label_column="place")
        store_of(tmp_path / name, source, {"embedding": circle(degrees)})
    words = ["retrieve", tmp_path / "asked", tmp_path / "held", "--label-column", "side", "--features", "embedding"]
    sources = ["--query", tmp_path / "asked.parquet", "--database", tmp_path / "held.parquet"]
    (entry,) = entries(run, *words, *sources).values()
    # Sides l at 0 and 95, r at 5 and 90 degrees: the other row of a side is third or last for every query.
    assert entry["results"]["retrieve"]["value"] == pytest.approx(np.mean([(1 + 2 / 4) / 2, (1 + 2 / 3) / 2] * 2))
    status, _, err = run(*words, *sources[:2])
    assert (status, "--label-column needs --database and --query" in err) == (2, True)


def test_prompts_take_a_named_combination_or_what_loo_chose(run, tmp_path):
    for name, degrees in (("held", TRAIN), ("asked", TEST)):
        pq.write_table(pa.table({"text": [f"{name} {at}" for at in range(4)], "label": PLACES}), tmp_path / name)
        (tmp_path / name).rename(tmp_path / f"{name}.parquet")
        source = open_source(tmp_path / f"{name}.parquet", modality="text")
        rng = np.random.default_rng(len(name))
        blocks = {"embedding": circle(degrees), "cls-2": circle(rng.uniform(0, 360, 4))}
        store_of(tmp_path / f"{name}-store", source, blocks)
    words = ["demonstrations", tmp_path / "held-store", tmp_path / "asked-store", "--out", tmp_path / "p.jsonl"]
    words += ["--train", tmp_path / "held.parquet", "--test", tmp_path / "asked.parquet", "--k", "2", "--json"]
    for name, blocks in (("paper", ["embedding"]), ("decorrelated", ["embedding", "cls-2"]), ("loo", ["embedding"])):
        status, out, err = run(*words, "--combination", name)
        assert (status, json.loads(out)["blocks"]) == (0, blocks), err
    status, _, err = run(*words, "--combination", "loo", "--features", "embedding")
    assert (status, "leave out --features" in err) == (2, True)


def test_progress_is_a_line_at_times_and_nothing_before(capsys):
    with Working(every_s=1000) as working:
        working("all the work")
    assert capsys.readouterr().err == ""


def test_progress_is_said_at_times_also_where_nothing_new_begins(capsys):
    with Working(every_s=0.05) as working:
        working("a long step")
        time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3
    assert set(lines) <= {"a long step ... 0:00", "a long step ... 0:01"}
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


# What goes wrong


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (["probe", "a", "b", "--features", "dino"], 2, "has no block 'dino'; there are: embedding, cls-2, kl"),
        (["probe", "a", "b", "--features", "embedding,views"], 2, "has no block of the family 'views'"),
        (["probe", "a", "b", "--features", "embedding,"], 2, "has an empty name"),
        (["probe", "a", "b", "--exponent", "0.5"], 2, "--exponent says how far --whiten evens out; add --whiten auto"),
        (["probe", "a", "b", "--whiten", "auto"], 2, "--whiten goes with --features"),
        (["probe", "a", "b", "--features", "kl", "--whiten", "some"], 2, "--whiten 'some'; expected a number"),
        (["probe", "a", "b", "--features", "kl", "--combination", "paper"], 2, "leave out --features"),
        (["probe", "a", "b", "--combination", "best"], 2, "is not one of 'paper', 'decorrelated', 'loo'"),
        (["probe", "a", "b", "--draws", "2"], 2, "--draws goes with --shots"),
        (["probe", "a", "b", "--shots", "0"], 2, "--shots"),
        (
            ["probe", "a", "b", "--shots", "1", "--combination", "loo"],
            2,
            "no draw has; `sporeprint compare --shots` chooses in each draw from its own rows; or name features here",
        ),
        (
            ["knn", "a", "b", "--shots", "50"],
            1,
            "--shots 50, where the largest class has 2 labelled rows; expected at most 2",
        ),
        (["probe", "topics-a", "topics-b", "--shots", "1"], 2, "these labels are lists"),
        (["probe", "topics-a", "topics-b", "--combination", "loo"], 2, "one class a row; take decorrelated"),
        (["probe", "topics-a", "b"], 1, "topics-a are lists"),
        (["knn", "a", "b", "--temperature", "0.1"], 2, "--temperature goes with --vote softmax"),
        (["knn", "a", "b", "--vote", "softmax", "--temperature", "0"], 2, "expected a number above 0"),
        (["knn", "a", "b", "--metric", "taxi"], 2, "--metric"),
        (["knn", "a", "b", "--train-split", "train"], 2, "a split goes with the source that it is of"),
        (["cluster", "none"], 1, "has no labels; extract it from a labelled source"),
        (["cluster", "topics-a"], 1, "has lists of labels; cluster needs one a row"),
        (["cluster", "a", "--combination", "loo"], 2, "by the labels that judge; take decorrelated, which needs no"),
        (["cluster", "nowhere"], 1, "is not a store"),
        (["retrieve", "b", "topics-a"], 1, "has lists of labels; retrieve needs one a row"),
        (["retrieve", "b", "--combination", "loo"], 2, "by the labels that judge"),
        (["retrieve", "b", "a", "--k", "auto"], 2, "--k 'auto'; expected positive integers, comma-separated"),
        (["retrieve", "b", "--ground-truth", "a"], 2, "--ground-truth needs two stores"),
        (["retrieve", "b", "a", "--ground-truth", "gnd"], 2, "--ground-truth: there is no"),
        (["retrieve", "b", "a", "--ground-truth", "a"], 1, "cannot be read"),
        (["retrieve", "heights-b", "one"], 1, "no label of"),
        (["regress", "a", "b"], 1, "are texts, such as 'low'; regress needs numbers"),
        (["regress", "topics-a", "topics-b"], 1, "lists of different lengths"),
        (["regress", "heights-a", "heights-b", "--combination", "loo"], 2, "numbers to predict; take decorrelated"),
        (["regress", "heights-a", "heights-b", "--k", "0"], 2, "--k '0'"),
        (["analyse", "a", "--combination", "paper"], 2, "give TEST_STORE too"),
        (["analyse", "a", "none"], 1, "has no labels"),
        (["probe", "a", "other"], 1, "features cannot be compared. Make the test store with --fit-from"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(run, data, words, status, complaint):
    command, *rest = words
    places = {name.name: name for name in data.iterdir()} | {
        "gnd": data / "gnd",
        "nowhere": data / "nowhere",
    }
    seen, out, err = run(command, *(places.get(word, word) for word in rest))
    assert (seen, out) == (status, "")
    assert complaint in err
    assert "Traceback" not in err


def test_one_class_and_one_row_are_said_and_not_an_error(run, data):
    for words in (["knn", "one", "b"], ["probe", "one", "b"], ["retrieve", "b", "one"], ["probe", "single", "b"]):
        status, out, err = run(words[0], *(data / name for name in words[1:]), "--features", "embedding")
        assert status == 0, err
        assert "one class only: nothing to tell apart" in out
    for name, note in (("single", "1 row, 1 class; one class only"), ("one", "4 rows, 1 class; one class only")):
        assert note in run("cluster", data / name, "--features", "embedding")[1]
    save(data, "each", [*"wxyz"], TRAIN)
    status, out, _ = run("cluster", data / "each", "--features", "embedding")
    assert (status, "4 classes; every row a class of its own: nothing to group" in out) == (0, True)
    assert "nothing to" not in run("cluster", data / "a", "--features", "embedding")[1]
    for words in (["knn", "single", "b"], ["cluster", "single"], ["analyse", "single"], ["analyse", "one", "b"]):
        status, _, err = run(words[0], *(data / name for name in words[1:]))
        assert status == 0, err


def test_a_figure_that_does_not_exist_is_a_dash_and_said(run, data):
    save(data, "level", [3.0] * 4, TEST)
    status, out, _ = run("regress", data / "heights-a", data / "level")
    assert (status, out.splitlines()[0]) == (0, "The embedding has no R^2 on these rows.")
    assert [row["R^2"] for row in table(out + "\n").values()] == ["-"] * 3
    assert "nan" not in out


def test_a_thousand_classes_are_folded_and_all_of_them_printed_with_all(run, data):
    names = [f"class {number:04}" for number in range(1000)]
    for name in ("thousand", "asking"):
        save(data, name, names, np.arange(1000) * 0.36)
    folded, whole = (
        run("analyse", data / "thousand", data / "asking", *more, columns=60)[1] for more in ((), ("--all",))
    )
    assert "Classes that gain and lose most, 10 of 1,000" in folded
    assert "990 more rows: --all" in folded
    assert sum(line.startswith("class ") and line[6:10].isdigit() for line in whole.splitlines()) == 1000
    assert max(map(len, (folded + whole).splitlines())) <= 60
