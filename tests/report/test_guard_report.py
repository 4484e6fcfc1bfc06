"""The page about a guard: what it says, that it is HTML, and that it needs nothing."""

import base64
import copy
import io
import itertools
import math
import re
import shutil
import warnings
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from quickly import learn_little

from curvdetect import (
    GuardedClassifier,
    LearnedDetector,
    TorchModel,
    VotingDetector,
)
from curvdetect.report.guard import attacked as attacking
from curvdetect.report.guard.evasion import Evasion
from curvdetect.report.guard.facts import Given, Origin, measured
from curvdetect.report.guard.page import NAME, SECTIONS, page, write_page
from curvdetect.report.guard.pictures import LARGEST, enlarged, picture
from curvdetect.report.guard.sections import frameworks
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet
from served import small_guard

pytest.importorskip("jinja2")
Image = pytest.importorskip("PIL.Image")

#: The first would be bold, if it were not escaped.
NAMES = [
    "<b>T-shirt</b>",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "boot",
]
VOID = {"br", "img", "link", "meta"}
ORIGIN = Origin(guard="<i>guard</i>.skops", network="net:make", images="new.npz")
SEARCH = Evasion("JointAttack", 60, 0.33, 0.84, 0.05)


class Page(HTMLParser):
    """The elements of a page, each with its attributes, text and place."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self._open = [], []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_decl(self, decl):
        assert decl == "DOCTYPE html"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs)
        above = [element["tag"] for element in self._open]
        element = {"tag": tag, "attrs": dict(attrs), "above": above, "text": ""}
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        assert "svg" in [element["tag"] for element in self._open]
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def all(self, *tags):
        return [each for each in self.elements if each["tag"] in tags]

    def section(self, name):
        (heading,) = [e for e in self.all("h2") if e["attrs"]["id"] == name]
        place = self.elements.index(heading)
        (found,) = [
            e
            for e in self.all("section")
            if e["attrs"]["aria-labelledby"] == name and e in self.elements[:place]
        ]
        return " ".join(found["text"].split())

    def rows(self, caption):
        """Return the text of the cells of a table, a list a row of its body."""
        tables = [e for e in self.all("table") if caption in e["text"]]
        start = self.elements.index(tables[0])
        rows = []
        for element in self.elements[start + 1 :]:
            if element["tag"] == "table":
                break
            if element["tag"] == "tr" and "tbody" in element["above"]:
                rows.append([])
            if element["tag"] in ("th", "td") and "tbody" in element["above"]:
                rows[-1].append(" ".join(element["text"].split()))
        return rows


@pytest.fixture(scope="module")
def facts():
    """Of a learned guard with few trees, and a few of the attacks."""
    X, y = load_fashion_mnist_sample()
    lessons = attacking.curriculum
    with pytest.MonkeyPatch.context() as patch:
        learn_little(patch, n_attacked=200)
        patch.setattr(attacking, "curriculum", lambda *a: lessons(*a)[1::5])
        model = TorchModel(
            load_lenet("fashion-mnist"), input_shape=(1, 28, 28), class_names=NAMES
        )
        detector = LearnedDetector(
            target_fpr=0.1, kinds=("minimal norm",), random_state=0
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "mean AUROC")  # what it will miss
            guard = GuardedClassifier(model, detector=detector).fit(X[:85], y[:85])
        given = Given(X[100:160], [f"{k}.png" for k in range(60)], y[100:160], "y")
        return measured(guard, given, origin=ORIGIN, n_attacked=15)


@pytest.fixture(scope="module")
def text(facts):
    return page(facts)


@pytest.fixture(scope="module")
def found(text):
    return Page(text)


@pytest.fixture
def by_threshold(model, images):
    """Facts of a guard without cascade, self-test, labels or attacks."""
    given = Given(images[0], [str(k) for k in range(40)])
    return measured(small_guard(model), given, origin=Origin(), n_attacked=0)


# That it is a page -------------------------------------------------------------


def test_it_needs_nothing_from_outside(text, found):
    assert len(text.encode()) < 500_000
    links = {e["attrs"]["href"] for e in found.all("a")}
    assert {link for link in links if "//" in link} == set(frameworks.LINKS)
    ids = {e["attrs"]["id"] for e in found.elements if "id" in e["attrs"]}
    for element in found.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = element["attrs"].get(name, "data:")
            inside = value.startswith("data:") or value.removeprefix("#") in ids
            assert inside or element["tag"] == "a", value
    assert not found.all("script", "iframe", "object", "embed", "form")
    assert not re.search(r"@import|url\((?!#)", text)
    policy = found.all("meta")[3]["attrs"]["content"]
    assert policy.startswith("default-src 'none'")


def test_ids_are_unique_and_what_names_them_finds_them(text, found):
    ids = Counter(e["attrs"]["id"] for e in found.elements if "id" in e["attrs"])
    assert set(ids.values()) == {1}
    named = re.findall(r'(?:url\(#|href="#|aria-labelledby=")([^")]+)', text)
    assert len(named) > 50
    assert set(named) <= set(ids)


def test_structure_for_those_who_hear_it(found):
    assert found.all("html")[0]["attrs"]["lang"] == "en"
    assert len(found.all("main")) == len(found.all("h1")) == 1
    assert found.all("title")[0]["text"]
    levels = [int(e["tag"][1]) for e in found.all("h1", "h2", "h3", "h4")]
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert found.elements.index(found.all("a")[0]) < found.elements.index(
        found.all("nav")[0]
    )  # the skip link
    contents = [e["text"] for e in found.all("a") if "nav" in e["above"]]
    assert contents == [section.TITLE for section in SECTIONS]
    assert contents == [e["text"] for e in found.all("h2")]


def test_pictures_have_words(found):
    for image in found.all("img"):
        assert image["attrs"]["alt"]
        assert int(image["attrs"]["width"]) == 28
    charts = found.all("svg")
    assert len(charts) == 4
    for chart in charts:
        assert chart["attrs"]["role"] == "img"
        assert len(chart["attrs"]["aria-label"]) > 60


def test_tables_have_captions_and_heads(found):
    tables = found.all("table")
    assert len(tables) == 8
    assert len(found.all("caption")) == len(tables)
    for head in found.all("th"):
        assert head["attrs"]["scope"] == ("col" if "thead" in head["above"] else "row")
        assert head["text"].strip()
    scrolling = [e for e in found.all("div") if e["attrs"].get("role") == "region"]
    assert len(scrolling) == 5
    assert {e["attrs"]["tabindex"] for e in scrolling} == {"0"}


def test_names_of_others_are_escaped(text, found):
    assert "<b>" not in text
    assert "<i>" not in text
    assert "<b>T-shirt</b>" in found.section("false-positives")
    assert "<i>guard</i>.skops" in found.section("made")
    alts = [e["attrs"]["alt"] for e in found.all("img")]
    assert any("<b>T-shirt</b>" in alt for alt in alts)


def luminance(colour):
    values = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values
    ]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(a, b):
    darker, lighter = sorted((luminance(a), luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_is_that_of_wcag(scheme):
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    style = resources.files("curvdetect.report.guard") / "templates" / "style.css"
    blocks = re.findall(r":root \{(.*?)\}", style.read_text(), re.S)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[scheme]))
    for name in ("text", "quiet", "link", "flag"):
        assert contrast(colours[name], colours["page"]) >= 4.5
    for name in ("text", "quiet"):
        assert contrast(colours[name], colours["raised"]) >= 4.5
    for k in range(1, 6):  # lines and dots
        assert contrast(colours[f"series-{k}"], colours["page"]) >= 3


# What it says ------------------------------------------------------------------


def test_network_and_calibration(facts, found):
    rows = dict(found.rows("The guarded network"))
    assert rows["Module"] == "LeNet"
    assert rows["Made by"] == "net:make"
    assert rows["Input"].startswith("1 x 28 x 28 (channels x height x width)")
    n = sum(p.numel() for p in facts.model.module.parameters())
    assert rows["Parameters"] == f"{n:,} numbers"
    assert rows["Fingerprint of the weights"] == facts.guard.weights_
    rows = dict(found.rows("What was calibrated"))
    assert rows["Target false-positive rate"].startswith("0.1 (share")
    n = len(facts.guard.detector_.clean_scores_)
    assert rows["Clean images that set the threshold"] == f"{n} images"
    assert rows["Threshold"].startswith(f"{facts.guard.detector_.threshold_:.3g} (log")
    X, y = (part[:85] for part in load_fashion_mnist_sample())
    right = (facts.model.predict(X) == y).sum() - n
    n_attacked = facts.guard.detector_.n_adversarial_
    learned = f"{right} clean images, and {n_attacked} adversarial ones made of them"
    assert rows["Images learned from"] == learned
    assert f"({learned}). The threshold was set on {n} others" in found.section(
        "calibration"
    )


def test_what_an_earlier_file_does_not_say(facts):
    guard = copy.copy(facts.guard)
    guard.detector_ = copy.copy(guard.detector_)
    for name in ("n_learned_", "n_adversarial_"):
        delattr(guard.detector_, name)
    found = Page(page(replace(facts, guard=guard)))
    said = dict(found.rows("What was calibrated"))["Images learned from"]
    assert said == "number not known, for the guard was fitted by an earlier version"
    assert said in found.section("calibration")


def test_both_self_tests(facts, found):
    rows = found.rows("Attacks on images of the calibration")
    known = facts.guard.self_test_.rows
    assert [row[0] for row in rows] == [row.attack for row in known]
    assert [row[-1] for row in rows] == ["not known"] * len(known)
    rows = found.rows("Attacks on the images given")
    (row, *others), test = rows, facts.attacked.test.rows
    assert [each[0] for each in rows] == [each.attack for each in test]
    assert row[1] == "1.5 x the least norm"
    assert row[3] == f"{test[0].n_fooled} of 15"
    assert row[6].startswith(f"{test[0].detected:.3f} (")
    assert {each[1].split(", ")[1] for each in others} <= {"each value", "L2 norm"}


def test_scores_and_figures_are_those_of_the_guard(facts):
    X, attacked = facts.given.X, facts.attacked
    again = facts.guard.assess(X)
    np.testing.assert_array_equal(facts.found.score, again.score)
    np.testing.assert_array_equal(facts.p_values, facts.guard.p_values(X))
    right = again.model_label == facts.given.labels
    np.testing.assert_array_equal(attacked.clean, again.score[right])
    for row in attacked.test:
        assert row.detected == np.mean(attacked.scores[row.attack] > 0)
        assert len(attacked.scores[row.attack]) == row.n_fooled
    last = attacked.stages[-1]
    scores = np.concatenate(list(attacked.scores.values()))
    assert last.auroc.value == pytest.approx(
        np.mean(scores[:, None] > attacked.clean)
        + np.mean(scores[:, None] == attacked.clean) / 2
    )
    assert last.cost == pytest.approx(facts.guard.detector_.cost(X[right]))


def test_stages(facts, found):
    first, second, third = facts.stages
    assert (first.cost, first.most, second.most, third.most) == (1, 1, 4, 8)
    assert first.cost < second.cost <= 4
    for where in ("clean_here", "attacked_here"):
        assert sum(getattr(s, where) for s in facts.stages) == pytest.approx(1)
    rows = found.rows("Stages of the detector")
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert rows[0][2:4] == ["1", "1"]


def test_false_positives_by_class(facts, found):
    right = facts.found.model_label == facts.given.labels
    rows = found.rows("Images that the network gets right, by their class")
    assert [row[0] for row in rows] == NAMES
    assert sum(int(row[1]) for row in rows) == right.sum()
    of_last = facts.found.flagged[right & (facts.given.labels == 9)]
    assert rows[-1][2].startswith(f"{of_last.mean():.3f} (")


def test_images_are_in_order_and_the_images_given(facts, found):
    shown = [e for e in found.all("img") if e["attrs"]["alt"].startswith("Image ")]
    assert len(shown) == 12
    order = np.argsort(-facts.found.score, kind="stable")
    expected = [*order[:6], *order[::-1][:6]]
    for element, row in zip(shown, expected, strict=True):
        assert element["attrs"]["alt"].startswith(f"Image {row}.png: ")
        pixels = decoded(element["attrs"]["src"])
        np.testing.assert_array_equal(
            pixels, np.round(255 * facts.given.X[row, 0]).astype(np.uint8)
        )


def decoded(source):
    encoded = source.removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def test_what_an_attack_changes(facts, found):
    for example in facts.attacked.examples:
        assert example.label_after != example.label
        assert facts.guard.assess(example.after[None]).model_label == [
            example.label_after
        ]
        norm = np.linalg.norm(example.after - example.before)
        assert f"L2 norm {norm:.3g}, largest change" in found.section("images")


def test_what_is_not_known_is_left_out(found):
    assert "Left out: this guard certifies nothing" in found.section("certificate")
    assert "Not measured." in found.section("evasion")
    assert "curvdetect evade measures it" in found.section("evasion")
    assert "curvdetect evade" in found.section("summary")
    assert "was not measured for this page. Nothing is proven" in found.section(
        "limits"
    )


def test_entries_of_frameworks(found):
    said = found.section("frameworks")
    for entry in ("AML.M0015", "ML01:2023", "NIST AI 100-2 E2025"):
        assert entry in said


def test_evasion_that_was_measured(facts):
    found = Page(page(replace(facts, evasion=[SEARCH])))
    (row,) = found.rows("Smallest perturbations found")
    assert row == ["JointAttack", "60", "0.05", "0.33", "0.84", "2.55"]
    assert "2.55 times" in found.section("summary")
    assert "not measured" not in found.section("summary")
    assert "upper bound" in found.section("limits")


def test_evasion_that_was_measured_with_an_interval(facts):
    search = SEARCH._replace(n_never=3, interval=(1.9, math.inf))
    found = Page(page(replace(facts, evasion=[search])))
    (row,) = found.rows("Smallest perturbations found")
    assert row[4:] == ["0.84; never on 3", "2.55 (1.9 to not found)"]


@pytest.mark.parametrize("largest", [3.3, None])
def test_evasion_that_was_not_found(facts, largest):
    never = SEARCH._replace(norm_to_evade=math.inf, largest_norm=largest)
    found = Page(page(replace(facts, evasion=[never])))
    (row,) = found.rows("Smallest perturbations found")
    assert row[4:] == ["not found" + ", up to 3.3" * (largest is not None), "not found"]
    said = found.section("summary")
    assert "half or more of the images never evaded" in said
    assert ("evaded, in a search up to a norm of 3.3;" in said) == (largest is not None)
    assert ("evaded; a better attack may" in said) == (largest is None)
    found = Page(page(replace(facts, evasion=[never, SEARCH])))
    assert "2.55 times" in found.section("summary")  # another attack does


def test_a_guard_without_stages_labels_or_attacks(by_threshold):
    found = Page(page(by_threshold))
    assert "the guard has no self-test" in found.section("self-test")
    assert "none of the images were attacked" in found.section("unseen")
    assert "no stages: every image costs the same" in found.section("cost")
    assert "for each class are left out" in found.section("false-positives")
    assert "no attack was made on the images" in found.section("images")
    assert "images that it gets wrong count as false" in found.section("limits")
    assert dict(found.rows("The guarded network"))["Classes"] == "10, without names"
    rows = dict(found.rows("What was calibrated"))
    assert "on the max of the average curvatures" in rows["Threshold"]
    cost = by_threshold.guard.featurizer_.cost()
    assert f"takes {cost:.3g} FE" in found.section("cost")


def test_attacks_that_hardly_ever_succeed(facts):
    none = replace(facts.attacked, test=type(facts.attacked.test)([], 0.1), stages=())
    found = Page(page(replace(facts, attacked=replace(none, examples=[]))))
    assert "no attack fooled the network on ten or more" in found.section("unseen")
    assert "it takes attacks on the images given" in found.section("cost")


def test_labels_of_which_the_network_gets_none(facts):
    wrong = (facts.found.model_label + 1) % 10
    given = replace(facts.given, labels=wrong)
    found = measured(facts.guard, given, origin=Origin())
    assert found.attacked is None
    said = Page(page(found)).section("false-positives")
    assert "Of 0 images that the network gets right, not known are flagged" in said


@pytest.fixture
def voting(model, images):
    """Facts of a guard that certifies, by votes of a companion."""
    companion = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    companion.module.classifier[-1].bias.data[0] += 0.1  # another network
    detector = VotingDetector(
        companion=companion, sigma=0.05, n_votes=20, target_fpr=0.2, random_state=0
    )
    guard = GuardedClassifier(model, detector=detector).fit(*images)
    given = Given(images[0][:20], [str(k) for k in range(20)])
    with pytest.MonkeyPatch.context() as patch:
        lessons = attacking.curriculum
        patch.setattr(attacking, "curriculum", lambda *a: lessons(*a)[:1])
        return measured(guard, given, origin=ORIGIN, n_attacked=12)


def test_certificates(voting):
    assert len(voting.certified.radius) == voting.attacked.n_attacked == 12
    found = Page(page(voting))
    said = found.section("certificate")
    assert str(voting.certified) in said
    share = np.mean(voting.certified.radius > 0)
    assert f"A positive radius: {share:.3f} (" in said
    labels = [e["attrs"]["aria-label"] for e in found.all("svg")]
    assert sum("certified radius" in label for label in labels) == 1
    assert dict(found.rows("Its companion"))["Module"] == "LeNet"
    rows = dict(found.rows("What was calibrated"))
    assert "of 20 votes for the network's label" in rows["Threshold"]
    assert "Nothing is proven" not in found.section("limits")


# Pictures and files ------------------------------------------------------------


def test_large_images_are_cut_not_averaged(rng):
    image = rng.random((3, 300, 200), dtype=np.float32)
    shown = picture(image, "noise")
    assert (shown.width, shown.height) == (LARGEST, LARGEST)
    middle = image[:, 86 : 86 + LARGEST, 36 : 36 + LARGEST].transpose(1, 2, 0)
    np.testing.assert_array_equal(
        decoded(shown.source), np.round(255 * middle).astype(np.uint8)
    )


@pytest.mark.parametrize("largest", [1.0, 0.25, 0.0627, 1e-5])
def test_perturbations_are_enlarged_as_far_as_they_fit(rng, largest):
    change = largest * rng.uniform(-1, 1, (1, 4, 4))
    change[0, 0, 0] = largest
    shown, factor = enlarged(change)
    np.testing.assert_allclose((shown - 0.5) / factor, change)
    assert 0.9 * 0.5 <= factor * largest <= 0.5 * (1 + 1e-6)


def test_nothing_that_was_changed_is_grey():
    shown, factor = enlarged(np.zeros((1, 2, 2)))
    assert (shown == 0.5).all()
    assert factor == 1


def test_the_largest_pictures_stay_below_three_megabytes(facts, rng):
    """Noise in colour, which no PNG makes smaller, of each picture on a page."""
    image = rng.random((3, 400, 400), dtype=np.float32)
    size = len(picture(image, "noise").source)
    assert (12 + 3 * 5) * size < 2_500_000


def test_a_page_is_written_whole_or_not_at_all(facts, tmp_path, monkeypatch):
    path = write_page(facts, tmp_path)
    assert path == tmp_path / NAME
    written = path.read_text()
    monkeypatch.setattr(
        Path, "write_text", lambda *a, **k: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        write_page(facts, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == [NAME]
    assert path.read_text() == written


def test_the_same_facts_are_the_same_page_whatever_the_style(facts, text):
    style = pytest.importorskip("matplotlib.style")
    with style.context("dark_background"):
        assert page(facts) == text


# In a browser (extra test-browser, and Chromium) ---------------------------------


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api")
    pytest.importorskip("axe_playwright_python")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync.sync_playwright() as play:
        try:
            launched = play.chromium.launch(
                executable_path=chromium, args=["--no-sandbox"]
            )
        except sync.Error:
            pytest.skip("no Chromium")
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def file(facts, tmp_path_factory):
    """With all that a page may hold."""
    return write_page(replace(facts, evasion=[SEARCH]), tmp_path_factory.mktemp("page"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_in_a_browser(browser, file, scheme, width):
    """No error, no request, nothing too wide, and nothing that axe objects to."""
    from axe_playwright_python.sync_playwright import Axe

    window = {"width": width, "height": 900}
    for bypass in (False, True):  # axe is a script, which the page forbids
        context = browser.new_context(
            viewport=window, color_scheme=scheme, bypass_csp=bypass
        )
        tab, said, asked = context.new_page(), [], []
        tab.on("console", lambda message, said=said: said.append(message.text))
        tab.on("pageerror", lambda error, said=said: said.append(str(error)))
        tab.on("request", lambda request, asked=asked: asked.append(request.url))
        tab.goto(file.as_uri())
        outside = [url for url in asked if not url.startswith("data:")]
        assert (said, outside) == ([], [file.as_uri()])
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        if bypass:
            violations = Axe().run(tab).response["violations"]
            assert [each["id"] for each in violations] == []
        context.close()
