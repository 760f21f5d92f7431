"""The page in headless Chromium, by keyboard alone: ask, open the note, vote until the interval appears, edit the profile."""

import json

import pytest

from mipo_mlx.files import read_records
from mipo_mlx.records import VOTES, Ballot
from tests.commands.test_chat import COOK, SOUP, run_with_notes
from tests.report.browser import COLOURS

from .chrome import CHROMIUM, Chrome
from .conftest import serving

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is missing: this test looks at the page in it")
READY = "!document.getElementById('chat-status').textContent && document.getElementById('blind-result').textContent"
# Faults of layout and of colours: what stands out of the window, what is too pale (below 4.5, WCAG 2.1 AA), what is too small.
PROBE = """
  const all = [...document.querySelectorAll('body *')].filter(e => e.getClientRects().length && !e.matches('script, .skip'));
  const wide = document.documentElement.clientWidth;
  const says = e => e.matches('textarea') || [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim());
  const name = e => e.tagName + '#' + e.id;
  return {
    over: all.filter(e => e.getBoundingClientRect().right > wide + 1).map(name), page: document.documentElement.scrollWidth, wide,
    pale: all.filter(says).filter(e => contrast(parts(getComputedStyle(e).color), behind(e)) < 4.5).map(name),
    faint: all.filter(e => e.matches('textarea, button:not(:disabled)')).filter(e =>
      contrast(parts(getComputedStyle(e).borderTopColor), behind(e.parentElement)) < 3).map(name),
    small: all.filter(says).filter(e => parseFloat(getComputedStyle(e).fontSize) < 12).map(name),
    paper: light(behind(document.body)), texts: all.filter(says).length,
  };
"""


@needs_browser
def test_ask_open_the_note_vote_until_the_interval_and_edit_the_profile(tiny_folder, tmp_path):
    folder = run_with_notes(tmp_path, tiny_folder)
    with serving(folder, max_tokens=12, temperature=1.0) as address, Chrome(tmp_path) as chrome:
        chrome.open(address.url, READY)
        assert chrome.run("document.title") == "mine"

        chrome.go("question")
        chrome.type(COOK)
        chrome.press("Enter")
        chrome.until("document.getElementById('chat-status').textContent == 'The answer is there.'")
        assert chrome.run("document.querySelector('#log .beside .text').textContent.length") > 0
        assert chrome.focused == "question"
        chrome.go("soup.md:3", 60)
        chrome.press("Enter")
        chrome.until("document.getElementById('passage').open")
        assert chrome.run("document.getElementById('passage-text').textContent") == SOUP
        chrome.press("Escape")
        chrome.until("!document.getElementById('passage').open")
        assert chrome.focused == "soup.md:3"  # the focus comes back

        chrome.go("with-base", 60)
        chrome.press(" ")
        chrome.go("question", 60)
        chrome.type("And at Easter?")
        chrome.press("Enter")
        chrome.until("document.querySelectorAll('#log .beside:last-child article').length == 2")
        chrome.until("document.getElementById('chat-status').textContent == 'The answer is there.'")

        for vote in range(20):
            assert chrome.run("document.getElementById('blind-result').textContent") == f"{vote} of 20 votes."
            if vote % 3:
                chrome.go("blind-question", 60)
                chrome.type(f"{COOK} For {vote} guests?")
                chrome.go("blind-own")
            else:
                chrome.go("blind-heldout", 60)
            chrome.press("Enter")
            chrome.until("document.activeElement.id == 'trial-title'")
            assert sorted(chrome.run("Object.keys(trial)")) == ["answers", "id", "question", "same", "sources"]
            same = chrome.run("trial.same")
            chrome.go("vote-neither" if same or vote % 5 == 4 else "vote-first" if vote % 2 else "vote-second")
            chrome.press("Enter")
            chrome.until("document.getElementById('trial').hidden && document.getElementById('blind-status').textContent.length")
        result = chrome.until(
            "document.getElementById('blind-result').textContent.includes('20 blind votes') && "
            "document.getElementById('blind-result').textContent"
        )
        assert "[0." in result and "which counts half" in result
        votes = read_records(folder / VOTES, Ballot)
        assert len(votes) == 20 and {vote.choice for vote in votes} == {"tuned", "base", "neither"}
        assert {vote.first for vote in votes} == {"tuned", "base"} and (folder / VOTES).stat().st_mode & 0o077 == 0

        chrome.go("profile-text", 60)
        chrome.type("- The user keeps bees.\n")
        chrome.go("profile-save")
        chrome.press("Enter")
        chrome.until("document.getElementById('profile-status').textContent.startsWith('Saved')")
        assert (folder / "profile.md").read_text() == "- The user keeps bees.\n"
        (folder / "profile.md").write_text("- Edited elsewhere.\n")
        chrome.press("Enter")
        chrome.until("document.getElementById('profile-status').textContent.includes('changed elsewhere')")

        failed = [e for e in chrome.events if e["method"] in ("Runtime.exceptionThrown", "Network.loadingFailed")]
        failed = [e for e in failed if e["params"].get("errorText") != "net::ERR_ABORTED"]
        urls = {e["params"]["request"]["url"] for e in chrome.events if e["method"] == "Network.requestWillBeSent"}
        assert failed == [] and all(url.startswith((address.url, "data:", "about:")) for url in urls)
        blocked = [e for e in chrome.events if e["method"] == "Log.entryAdded" and "Content Security" in json.dumps(e)]
        assert blocked == []


@needs_browser
def test_narrow_and_wide_light_and_dark_and_for_a_screen_reader(mine, tmp_path):
    with serving(mine, key="s3cret") as address, Chrome(tmp_path) as chrome:
        chrome.open(address.url, "document.getElementById('locked').open")
        assert "s3cret" not in chrome.run("document.documentElement.outerHTML") and chrome.focused == "key"
        chrome.type("s3cret")
        chrome.press("Enter")
        chrome.until(READY)
        body = {"model": "mine", "messages": [{"role": "user", "content": COOK}]}
        answer = address.post("/v1/chat/completions", body, headers={"authorization": "Bearer s3cret"}).json()["choices"][0]
        chrome.run(f"$('question').value = {json.dumps(COOK)}; $('chat-form').requestSubmit()")
        chrome.until("$('chat-status').textContent == 'The answer is there.'")
        assert chrome.run("document.querySelectorAll('#log .cut').length") == (answer["finish_reason"] == "length") == 1
        chrome.run("compare(null)")
        chrome.until("!document.getElementById('trial').hidden")
        for width in (320, 375, 700, 1400):
            for dark in (False, True):
                chrome.size(width, dark)
                layout = chrome.run(f"(() => {{ {COLOURS} {PROBE} }})()")
                assert layout["page"] == layout["wide"] == width and layout["over"] == [], (width, layout)
                assert layout["pale"] == layout["faint"] == layout["small"] == [] and layout["texts"] > 25, (width, dark, layout)
                assert (layout["paper"] < 0.1) is dark
        nodes = chrome.call("Accessibility.getFullAXTree")["nodes"]
        shown = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored")]
        assert {("log", "The talk"), ("heading", "Chat"), ("heading", "Blind test"), ("heading", "Profile")} <= set(shown)
        assert (
            ("textbox", "Your question") in shown
            and ("button", "A fits better") in shown
            and ("checkbox", "With my notes") in shown
        )
        assert [role for role, _ in shown].count("status") == 3
        unnamed = [
            role for role, name in shown if role in ("button", "textbox", "checkbox", "heading", "link", "article") and not name
        ]
        assert unnamed == []
