"""benchmarks/: pairs, FLOPs, medians, gradients, tables; and each documented command once, with its smallest setting."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import inputs  # noqa: E402
import owners  # noqa: E402
import peers  # noqa: E402
import study  # noqa: E402
import table  # noqa: E402
from shapes import ROWS, Row, Shape, full_rows, shared_prompt, step_flops  # noqa: E402

SMALL = Shape(layers=2, hidden=8, queries=8, keys=4, feed_forward=16, vocabulary=100, rank=2)


def test_a_row_with_three_negatives_is_three_pairs_for_a_peer_that_knows_one():
    row = Row(512, 128, 3)
    assert row.pairs == 3
    assert peers.SIDES["ours"].pairs(row) == peers.SIDES["plain"].pairs(row) == 3
    assert peers.SIDES["mlx-lm-lora"].pairs(row) == peers.SIDES["trl"].pairs(row) == 1
    assert peers.SIDES["mlx-lm-lora-batched"].pairs(row) == 3
    assert [Row(*r) for r in ROWS] == [Row.parse(t) for t in ("128x128x1", "512x128x1", "512x128x3", "1024x64x3")]


@pytest.mark.parametrize("text", ["512x128", "0x1x1", "axbxc", ""])
def test_a_row_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="512x128|0x1x1|axbxc|''"):
        Row.parse(text)


def test_a_rows_tokens_are_cut_from_the_text_one_after_the_other():
    prompt, answers = inputs.tokens(Row(5, 3, 2), list(range(20)))
    assert prompt == [0, 1, 2, 3, 4] and answers == [[5, 6, 7], [8, 9, 10], [11, 12, 13]]
    with pytest.raises(SystemExit, match="needs 14 tokens"):
        inputs.tokens(Row(5, 3, 2), list(range(13)))


def test_tokens_and_keys_of_a_pass_equal_a_count_one_by_one():
    row = Row(5, 3, 2)
    length = 5 + 3 - 1  # the last token predicts nothing
    assert full_rows(row, 3, scored=length).tokens == 3 * length
    assert full_rows(row, 3, scored=length).attended == 3 * sum(range(1, length + 1))
    # The prompt's first four tokens once; then each of three answers from the prompt's last token on.
    shared = shared_prompt(row)
    assert shared.tokens == 4 + 3 * 3
    assert shared.attended == sum(range(1, 5)) + 3 * (5 + 6 + 7)
    assert shared.scored == 9


def test_flops_of_a_forward_pass_equal_the_sum_over_matrices():
    from shapes import Pass, forward

    linear, adapter, attention, head = forward(SMALL, Pass(tokens=3, attended=6, scored=2))
    ins_and_outs = [(8, 8), (8, 4), (8, 4), (8, 8), (8, 16), (8, 16), (16, 8)]  # q, k, v, o, gate, up, down
    assert linear == 2 * 2 * 3 * sum(i * o for i, o in ins_and_outs)
    assert adapter == 2 * 2 * 3 * 2 * sum(i + o for i, o in ins_and_outs)
    assert attention == 2 * 6 * (2 * 8 + 2 * 8)
    assert head == 2 * 2 * 8 * 100


def test_ways_to_take_a_step_are_in_the_order_of_their_work():
    row = Row(512, 128, 3)
    ways = ["shared", "plain", "pairs", "pairs, logits recomputed", "pairs, recomputed"]
    work = [step_flops(SMALL, row, way) for way in ways]
    assert work == sorted(work) and len(set(work)) == len(work)
    # With one negative, pairs and rows are the same thing.
    assert step_flops(SMALL, Row(512, 128, 1), "plain") == step_flops(SMALL, Row(512, 128, 1), "pairs")


def test_shape_of_a_configuration_without_head_size():
    config = dict(num_hidden_layers=30, hidden_size=576, intermediate_size=1536, num_attention_heads=9, vocab_size=49152)
    assert Shape.of({**config, "num_key_value_heads": 3}, 8) == Shape(30, 576, 576, 192, 1536, 49152, 8)
    assert Shape.of(config, 8).keys == 576


def step(seconds, resident=1, mlx=None, loss=0.7):
    return {"event": "step", "seconds": seconds, "resident": resident, "mlx": mlx, "loss": loss}


def test_a_cold_first_step_counts_only_where_there_is_no_other():
    cold = {"event": "checked", "seconds": 9.0, "loss": 0.5}
    assert table.summarize([]) == {}
    assert table.summarize([cold])["seconds"] == 9.0
    result = table.summarize([cold, step(1, 5, 3), step(3, 7, 4), step(2, 6, 2)])
    assert (result["seconds"], result["steps"], result["resident"], result["mlx"]) == (2, 3, 7, 4)


def test_gradients_are_compared_over_all_matrices(tmp_path):
    a = {"x": np.array([[3.0, 0.0]]), "y": np.array([4.0])}
    np.savez(tmp_path / "a.npz", **a)
    np.savez(tmp_path / "b.npz", **{k: 2 * v for k, v in a.items()})
    np.savez(tmp_path / "c.npz", x=a["x"])
    assert table.compare(tmp_path / "a.npz", tmp_path / "a.npz") == (pytest.approx(1), 0)
    assert table.compare(tmp_path / "a.npz", tmp_path / "b.npz") == (pytest.approx(1), pytest.approx(1))
    assert np.isnan(table.compare(tmp_path / "a.npz", tmp_path / "c.npz")).all()


def lines_of(peer_loss=0.5, difference=1e-6):
    row = Row(512, 128, 3)
    check = {"loss": 0.5}
    result = {
        "ours": dict(seconds=6.0, steps=3, resident=2e9, mlx=1e9, start=1.4, check=check, way="shared", pairs=3),
        "mlx-lm-lora": dict(
            seconds=10.0, steps=2, resident=5e9, mlx=4e9, start=0.7, check={"loss": peer_loss}, ours_loss=0.5, way="pairs", pairs=1
        ),
    }
    return table.lines(row, result, SMALL, 1e9, {"mlx-lm-lora": (1.0, difference)})


def test_a_line_compares_pairs_a_second_and_peaks():
    ours, theirs = lines_of()
    assert ours["pairs/s"] == 0.5 and theirs["pairs/s"] == 0.1
    assert theirs["seconds"] == 30.0  # three of its steps
    assert theirs["faster"] == pytest.approx(5) and theirs["smaller"] == pytest.approx(0.4)
    assert theirs["smaller (mlx)"] == pytest.approx(0.25)
    whole = step_flops(SMALL, Row(512, 128, 3), "pairs")
    assert theirs["share"] == pytest.approx(whole / 3 / 10.0 / 1e9)
    assert theirs["same"] and "faster" not in ours


def test_the_planned_peak_stands_beside_the_measured_one():
    assert table.planned({"check": {"planned": 2.3e9}, "mlx": 2e9}) == "2.30 (+15%)"
    assert table.planned({"check": {}, "mlx": 2e9}) is None and table.planned({"check": None, "mlx": None}) is None


@pytest.mark.parametrize("change", [{"peer_loss": 0.51}, {"difference": 0.1}, {"difference": float("nan")}])
def test_another_start_is_named(change):
    theirs = lines_of(**change)[1]
    assert not theirs["same"]
    assert "| NO " in table.markdown([theirs])


def test_the_table_is_markdown_with_aligned_columns():
    text = table.markdown(lines_of()).splitlines()
    assert len(text) == 4 and len({len(line) for line in text}) == 1
    assert "5.00x" in text[3] and "5.00x" not in text[2]


def test_slow_sides_are_measured_less_often_and_each_at_least_once(tmp_path):
    benchmark = peers.Benchmark.__new__(peers.Benchmark)
    benchmark.options = type("Options", (), {"repeats": 3, "patience": 45.0})
    row = Row(512, 128, 1)

    def enough(*seconds):
        events = ["checked"] + ["step"] * (len(seconds) - 1)
        benchmark.found = [
            {"row": str(row), "side": "trl", "event": event, "seconds": s} for event, s in zip(events, seconds, strict=False)
        ]
        return benchmark.enough(row, "trl")

    assert not enough() and not enough(80) and not enough(8, 8)
    assert enough(80, 80) and enough(20, 20, 20) and enough(1, 1, 1, 1)


def test_every_side_has_a_worker():
    for side in peers.SIDES.values():
        assert (BENCHMARKS / "workers" / f"{side.worker}.py").exists()


def test_a_worker_speaks_lines_of_json(tmp_path):
    """The protocol alone, with a worker that has no model."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "from protocol import Session, Stop, peak_resident, reset_peak\n"
        "session = Session()\nprint('noise')\nsession.send(event='checked', seconds=1, prompt=session.config['prompt'])\n"
        "reset_peak()\ntry:\n    while True:\n        session.wait(trim=lambda: None)\n"
        "        block = bytearray(64 << 20)\n        session.send(event='step', resident=peak_resident())\n"
        "except Stop:\n    pass\n"
    )
    (tmp_path / "config.json").write_text(json.dumps({"blas": [], "prompt": [1, 2], "answers": [[3]]}))
    done = subprocess.run(
        [sys.executable, worker, tmp_path / "config.json"], input="trim\nstep\nstop\nstep\n", capture_output=True, text=True,
        env={"PYTHONPATH": str(BENCHMARKS / "workers")}, check=True,
    )  # fmt: skip
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["event"] for r in replies] == ["checked", "trimmed", "step"]
    assert replies[0]["prompt"] == [1, 2] and replies[2]["resident"] > 64 << 20
    assert "noise" in done.stderr


def test_the_trade_draws_gain_upwards_and_cost_to_the_right_with_its_limit():
    from xml.etree import ElementTree

    import trade

    def measures(gain: float, length: float) -> dict:
        def around(value: float) -> dict:
            return {"change": value, "interval": [value - 0.05, value + 0.05]}

        return {trade.GAIN: around(gain), "tokens": around(length)}

    drawn = trade.draw([("good", "chosen", measures(0.4, 0.0)), ("dear", "rate", measures(0.2, 0.15))])
    panel = ElementTree.fromstring(drawn)[1 + [key for key, *_ in trade.COSTS].index("tokens")]
    name = "{http://www.w3.org/2000/svg}"
    (x, y), (dear_x, dear_y) = [(float(c.get("cx")), float(c.get("cy"))) for c in panel.iter(f"{name}circle")]
    limit = next(float(line.get("x1")) for line in panel.iter(f"{name}line") if line.get("class") == "dash")
    assert y < dear_y and x < dear_x == limit  # 15 % longer is just what is allowed
    assert {text.text for text in panel.iter(f"{name}text")} >= {"good", "dear", "answer length, %"}


def test_labels_of_the_trade_keep_clear_of_each_other_and_of_the_edge():
    import trade

    from mipo_mlx.report.charts import WIDTH

    taken = [(100.0, 40.0, 100.0)]
    assert not trade.free(taken, 120, 105, 40) and trade.free(taken, 120, 112, 40) and trade.free(taken, 141, 100, 40)
    assert not trade.free([], WIDTH - 40, 100, 60) and not trade.free([], 20, 100, 10)


@pytest.fixture
def a_study(tmp_path, monkeypatch):
    """Options of a study over one note and one question, whose cells are finished as soon as they begin."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("I keep bees.")
    (tmp_path / "arc.jsonl").write_text("{}")
    options = argparse.Namespace(
        notes=str(tmp_path / "notes"), abilities=str(tmp_path / "arc.jsonl"), questions=5, set=[], seeds=1, workers=1, threads=1
    )

    def finish(command, **_):
        study.begin(options, "grids", study.BASE, 0)
        name = command[command.index("--cell") + 1]
        (study.begin(options, name, name, 0) / "eval.json").write_text("{}")
        began.append(name)
        return argparse.Namespace(returncode=0)

    began: list[str] = []
    monkeypatch.setattr(study, "STUDY", tmp_path / "study")
    monkeypatch.setattr(study.subprocess, "run", finish)
    return options, began


def test_a_finished_cell_is_not_computed_again_wherever_its_notes_lie(a_study, tmp_path):
    options, began = a_study
    study.run_cells(options, ["sft"])
    options.notes = str((tmp_path / "notes").rename(tmp_path / "moved"))
    study.run_cells(options, ["sft", "no_context"])
    assert began == [study.BASE, "sft", "no_context"]


@pytest.mark.parametrize("change", ["notes", "abilities", "questions", "set", "earlier version"])
def test_a_cell_made_from_something_else_is_refused(a_study, tmp_path, change):
    options, began = a_study
    study.run_cells(options, ["sft"])
    if change == "notes":
        (tmp_path / "notes" / "a.md").write_text("I bake bread.")
    elif change == "abilities":
        (tmp_path / "arc.jsonl").write_text("{} ")
    elif change == "earlier version":
        (tmp_path / "study" / "sft-0" / study.MADE_FROM).unlink()
    else:
        vars(options).update({"questions": 6} if change == "questions" else {"set": ["training.beta=0.2"]})
    with pytest.raises(SystemExit, match="(grids|sft)-0: made from another recipe, other notes or other questions"):
        study.run_cells(options, ["sft"])
    assert began == [study.BASE, "sft"]


@pytest.mark.parametrize(
    ("change", "interval", "form", "shown"),
    [
        (0.334, [0.226, 0.438], (100, 0, ""), "+33 [23, 44]"),
        (-0.012, [-0.081, 0.06], (100, 0, " %"), "-1 % [-8, 6]"),
        (-0.004, [-0.031, -0.001], (100, 0, " %"), "0 % [-3, 0]"),
        (0.66, None, (1, 1, ""), "+0.7"),
    ],
)
def test_the_studys_cells(change, interval, form, shown):
    assert study.show({"change": change, "interval": interval}, *form) == shown


def start(folder: Path, program: str, *arguments: str) -> str:
    """What a command of benchmarks/ prints, with its cache in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent), "MIPO_BENCHMARKS": str(folder), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCHMARKS / program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.process
def test_peers_run_with_the_default_model_and_start_from_the_same_place(tmp_path):
    out = start(tmp_path, "peers.py", "--quick", "--sides", "ours,plain", "--threads", "1")
    heads, _, *rows = [cells(line) for line in out.splitlines() if line.startswith("|")]
    ours, plain = (dict(zip(heads, row, strict=True)) for row in rows)
    assert (ours["side"], plain["side"], plain["same start"]) == ("ours", "plain", "yes")
    assert ours["loss at B = 0"] == plain["loss at B = 0"] == "1.38629"  # log 4: one chosen answer among four
    assert float(plain["ours is faster"].rstrip("x")) > 0 and float(ours["peak GB (MLX)"]) < float(plain["peak GB (MLX)"])


def test_what_all_sides_read_has_the_weights_that_the_model_computes_with(tmp_path):
    from mipo_mlx.engine.tables import STORED, tables
    from mipo_mlx.models import load
    from tests.export.helpers import MODELS, make_tiny

    path = make_tiny("llama", *MODELS["llama"], tmp_path).write(tmp_path / "tiny.gguf", "q4_1")
    stored = load.load(str(path))
    assert any(isinstance(layer, STORED) for layer in stored.model.modules())  # the embedding stays as the file has it
    inputs.write_model(tmp_path, stored.path, stored.config)
    stored.tokenizer._tokenizer.save_pretrained(tmp_path)
    written = load.load(str(tmp_path))
    assert not tables(written.model)
    tokens = mx.array([[1, 2, 3, 4]])
    assert mx.allclose(written.model(tokens), stored.model(tokens), atol=1e-5)


@pytest.mark.process
def test_the_sampling_benchmark_runs(tmp_path, tiny_folder):
    small = ["--rounds", "1", "--answers", "4", "--max-tokens", "2", "--context", "32", "--model", str(tiny_folder)]
    out = start(tmp_path, "sampling.py", *small)
    ratios = {line.split()[0]: float(line.split()[-1].rstrip("x")) for line in out.splitlines()[1:]}
    assert ratios.keys() == {"plain", "shared", "grid"} and min(ratios.values()) > 0


@pytest.mark.process
def test_the_vocabulary_benchmark_runs(tmp_path):
    out = start(tmp_path, "vocabulary.py", "--quick")
    growth = {
        cells(line)[0]: float(cells(line)[-1].rstrip("%")) for line in out.splitlines() if line.startswith("| ") and "%" in line
    }
    assert growth["peak of the step"] > growth["without the embedding table"] and abs(growth["beside all weights"]) < 5


@pytest.mark.process
def test_the_serving_benchmark_runs(tmp_path):
    out = start(tmp_path, "serving.py", "--minutes", "0.05", "--clients", "3")
    answers = re.search(r"(\d+) whole and (\d+) streamed answers, \d+ left, 0 failed", out)
    assert answers and min(map(int, answers.groups())) > 0


def test_the_simulation_of_intervals_runs(tmp_path):
    rows = [cells(line) for line in start(tmp_path, "coverage.py", "--trials", "20").splitlines()[2:]]
    assert len(rows) == 7 and all(float(ours.rstrip("%")) >= float(plain.rstrip("%")) for _, plain, ours in rows)


@pytest.mark.process
def test_the_reading_benchmark_runs(tmp_path, tiny_folder):
    out = start(tmp_path, "reading.py", "doubling", "--largest", "8000", "--sign", "{{", "--ending", ".md", "--ending", ".org")
    rows = [cells(line) for line in out.splitlines()[2:]]
    assert [(row[1], row[2]) for row in rows] == [(e, k) for e in (".md", ".org") for k in ("one", "many")]
    assert all(float(cell) >= 0 for row in rows for cell in row[3:])
    out = start(tmp_path, "reading.py", "many", "--count", "30", "--model", str(tiny_folder))
    files, passages, contexts = map(int, re.match(r"(\d+) files, (\d+) passages, (\d+) contexts\n", out).groups())
    assert files == 30 and passages > 60 and 0 < contexts <= passages


def test_owners_count_who_an_answer_is_nearest_to_and_the_diagonal_against_the_rest():
    people = [owners.Owner(name, [name], []) for name in ("bees", "trains", "bread")]
    texts = [["bees", "trains"], ["bread", "trains bread"], ["", "bread"]]  # the empty one is equally near to all

    def embed(some):
        return np.array([[float(person.name in text.split()) for person in people] for text in some])

    assert owners.share_nearest(texts, people, embed) == pytest.approx([1 / 2, 1 / 4, 2 / 3])
    matrix = np.array([[0.9, 0.2, 0.3], [0.1, 0.6, 0.3], [0.3, 0.2, 0.9]])
    # Gaps of 70, 40 and 60 points: mean 56.7, standard error 8.8, and t of two degrees of freedom is 4.303.
    assert owners.summary(matrix, [0.3, 0.3, 0.3]) == "diagonal 80, rest 23, base 30; diagonal - rest +56.7 [19.0, 94.3]"


def test_eight_owners_and_personas_have_twelve_facts(tmp_path):
    options = argparse.Namespace(contexts=None, owners=8)
    assert [len(owner.facts) for owner in owners.owners_of(options)] == [12] * 8
    rows = [{"context": "\n".join(f"I like {row} and {fact}." for fact in range(5))} for row in range(6)]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = argparse.Namespace(contexts=str(tmp_path / "c.jsonl"), owners=2)
    assert [len(set(owner.facts)) for owner in owners.owners_of(options)] == [12, 12]
    with pytest.raises(SystemExit, match="2 owners of 12 facts, and 3 are wanted"):
        owners.owners_of(argparse.Namespace(contexts=options.contexts, owners=3))


@pytest.mark.process
def test_owners_are_trained_asked_and_shown_and_a_second_start_repeats_nothing(tmp_path, tiny_folder, monkeypatch, capsys):
    keys = {
        "model": tiny_folder, "pairs.grids": 1, "pairs.max_tokens": 2, "pairs.said_back": 0, "memory.embedder": "base",
        "training.bake.answers": 2, "training.bake.epochs": 0.5,
    }  # fmt: skip
    arguments = ["owners.py", "--owners", "2", *(part for key, value in keys.items() for part in ("--set", f"{key}={value}"))]
    monkeypatch.setattr(owners, "CACHE", tmp_path)
    monkeypatch.setattr(sys, "argv", [*arguments, "--table"])
    with pytest.raises(SystemExit, match="not finished: the base, Marta, bees, Tom, night shifts"):
        owners.main()
    monkeypatch.setattr(sys, "argv", arguments)
    owners.main()
    out = capsys.readouterr().out
    assert out.count("| the base |") == out.count("diagonal - rest") == 4
    (result,) = tmp_path.glob("owners/*/shares.json")
    before = {path: path.stat().st_mtime_ns for path in result.parent.rglob("adapters.safetensors")}
    rows = json.loads(result.read_text())
    assert rows[owners.BASE][owners.LIKELIER] != rows["Marta, bees"][owners.LIKELIER]
    result.unlink()  # as where it was killed before the last line
    owners.main()
    assert out.endswith(capsys.readouterr().out.partition("\n")[2])
    assert before and before == {path: path.stat().st_mtime_ns for path in before}
