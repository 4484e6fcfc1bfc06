"""What the page of detectors says of results."""

import json

import numpy as np
import pytest

from benchmarks.evidence import picture, report, results
from benchmarks.evidence.detectors.ours import GUARD, GUARD_WITH_COMPANION


def detector(auroc, unseen, *, ours=False, fe=2.0, ms=4.0):
    return {
        "learns": "nothing",
        "source": "a test",
        "ours": ours,
        "n_calibration": 200,
        "cost": {"fit_seconds": 1.0, "fe": fe, "ms": ms, "bare_ms": 2.0},
        "clean": [[0.01, 0, 0.03], [0.05, 0.02, 0.08]],
        "attacks": {"PGD": [auroc, auroc - 0.1, auroc + 0.1, 0.5, 0.6, unseen, 0.4]},
        "corrupted": {"noise 1": [10, 0, 1, 2, 0, 1], "noise 4": [10, 9, 9, 0, 0, 0]},
        "other_data": None,
    }


def means(auroc, unseen, **more):
    around = lambda v: [v, v - 0.01, v + 0.01]
    values = {"auroc": auroc, "unseen": unseen, "detected": 0.6}
    return {k: around(v) for k, v in (values | {"unseen_detected": 0.4}).items()} | more


def lines(guard=0.95, peer=0.9, ahead=(0.05, 0.01, 0.09), p=0.01):
    attack = {"kind": "gradient steps", "success": [0.9, 0.8, 1], "norm": 1.5}
    attack |= {"n": 90, "learned_from": True}
    first = {"what": "attacks", "title": "a network", "n_clean": 100, "torch": "2"}
    first |= {"accuracy": [0.9, 0.8, 1], "machine": "m", "attacks": {"PGD": attack}}
    compared = {"ahead": list(ahead), "p": p, "p_holm": p, "guard": GUARD}
    return [
        first,
        {"what": GUARD, **detector(guard, guard, ours=True, ms=40.0)},
        {"what": "peer", **detector(peer, peer)},
        {"what": "broken", "failed": "ValueError: no"},
        {
            "what": "comparisons",
            "means": {
                GUARD: means(guard, guard),
                "peer": means(peer, peer, **compared),
            },
        },
    ]


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Write results of networks where they are looked for."""
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    (tmp_path / "detection").mkdir()

    def written(**networks):
        results._committed.cache_clear()
        for name, of in networks.items():
            text = "".join(json.dumps(line) + "\n" for line in of)
            (tmp_path / "detection" / f"{name}.jsonl").write_text(text)
        return results.measured()

    yield written
    results._committed.cache_clear()


def test_a_row_has_the_figures_of_its_cell(measured):
    found = measured(lenet_mnist=lines())["lenet_mnist"]
    assert list(results.rows(found)) == [GUARD, "peer"]
    row = results.rows(found)["peer"]
    assert row.auroc == pytest.approx((0.9, 0.89, 0.91))
    assert (row.worst, row.fe, row.slower, row.clean) == (0.9, 2, 2, 0.05)
    assert row.corrupted == 0.1  # severity 4 is not mild
    assert np.isnan(row.other_data)


def test_the_worst_attack_is_one_that_succeeded_often_enough(measured):
    made = lines()
    made[0]["attacks"]["rare"] = made[0]["attacks"]["PGD"] | {"n": 19}
    made[2]["attacks"]["rare"] = [0.2, 0.1, 0.3, 0, 0, 0.2, 0]
    found = measured(lenet_mnist=made)["lenet_mnist"]
    assert results.rows(found)["peer"].worst == 0.9
    made[0]["attacks"]["rare"]["n"] = 20
    found = measured(lenet_mnist=made)["lenet_mnist"]
    assert results.rows(found)["peer"].worst == 0.2


def test_means_are_over_the_networks_where_a_detector_was(measured):
    one = lines(peer=0.9)
    other = [line for line in lines(guard=0.85) if line["what"] != "peer"]
    del other[-1]["means"]["peer"]
    measured(lenet_mnist=one, large_cifar10=other)
    found = results.overall()
    assert found[GUARD].n_networks == 2
    assert found[GUARD].unseen[0] == pytest.approx(0.9)
    assert found["peer"].n_networks == 1


def test_what_is_flagged_of_harmless_images(measured):
    made = lines()
    made[1]["corrupted"] = {
        "noise 1": [100, 1, 4, 0, 0, 0],
        "blur 3": [40, 1, 8, 60, 50, 60],
        "blur 4": [50, 50, 50, 50, 0, 0],  # not mild
        "contrast 3": [19, 19, 19, 81, 0, 0],  # too few
    }
    measured(lenet_mnist=made)
    row = report.met_by_users().splitlines()[-1].split(" | ")
    assert row[1:4] == ["0.050 (0.020-0.080)", "0.120", "8/40, blur 3"]
    assert row[4] == "-"  # no guard with a companion


def test_networks_met_later_have_a_table_of_their_own(measured):
    made = lines(peer=0.91)
    made[0]["title"] = "another network"
    made.insert(2, {"what": GUARD_WITH_COMPANION, **detector(0.97, 0.97, ours=True)})
    made[-1]["means"][GUARD_WITH_COMPANION] = means(0.97, 0.97)
    measured(lenet_mnist=lines(), resnet_2b_cifar10=made)
    own, both, peer = report.later().splitlines()[-3:]
    assert own.startswith(f"| another network (0.900) | **{GUARD}** | 0.950 (0.940-0.9")
    assert both.startswith(f"|  | **{GUARD_WITH_COMPANION}** | 0.970 (0.960-0.980) | ")
    assert peer.startswith("|  | peer | 0.910 (0.900-0.920) | 0.91 | 0.40 | 0.050 (0.0")
    said = report.later_in_short().replace("\n", " ")
    assert "On 1 further networks" in said
    assert "is 0.950 (worst network 0.950), with 0.40 detected at 5 %, 0.050" in said
    assert "The best peer there, *peer*, has 0.910." in said
    assert "another network" not in report.by_network()
    assert "another network" not in report.where_not()
    made[-1]["means"]["peer"] |= {"ahead": [-0.02, -0.04, 0.01], "p_holm": 1.0}
    measured(lenet_mnist=lines(), resnet_2b_cifar10=made)
    assert "- **another network**: *peer* is ahead by 0.0200" in report.page()
    assert results.overall()["peer"].n_networks == 1


def test_corrupted_images_in_short_are_those_of_all_networks(measured):
    def flagged(n):
        made = lines()
        made.insert(2, {**made[1], "what": GUARD_WITH_COMPANION})
        made[-1]["means"][GUARD_WITH_COMPANION] = means(0.9, 0.9)
        for line in made[1:3]:
            line["corrupted"] = {"noise 1": [100, 0, n, 0, 0, 0]}
            line["corrupted"] |= {"blur 2": [100, 0, 4, 0, 0, 0]}
        return made

    measured(lenet_mnist=flagged(8), large_cifar10=flagged(30))
    said = report.met_in_short().replace("\n", " ")
    assert "at rates of 0.060 to 0.170 by network, and of the worst kind" in said
    assert "worst kind 0.08 to 0.30; with a companion 0.060 to" in said


def test_tables_are_of_the_folder_that_was_asked_for(measured, tmp_path):
    measured(lenet_mnist=lines(), large_cifar10=lines()[:-1])
    names = ["large_cifar10", "lenet_mnist", "resnet_4b_cifar10"]
    found = results.found_in(tmp_path / "detection", names)
    assert list(found) == ["lenet_mnist"]
    shown = report.tables(found)
    assert f"| **{GUARD}** | 1 | 0.950 (0.940-0.960) |" in shown
    assert "| gradient steps | PGD | 0.90 | 1.50 | 90 |" in shown


def test_a_network_under_way_is_not_shown(measured):
    assert measured(lenet_mnist=lines()[:-1]) == {}


def test_a_peer_that_is_ahead_is_said_first(measured):
    measured(lenet_mnist=lines(peer=0.97, ahead=(-0.02, -0.04, 0.01), p=1.0))
    assert report.where_not() == (
        "- **a network**: *peer* is ahead by 0.0200 (corrupted flagged: 0.10, "
        "ours 0.10)."
    )
    page = report.page()
    assert page.index("*peer* is ahead by") < page.index("## All detectors")
    assert "0 of 1" in report.ahead()


def test_a_peer_that_chance_may_have_put_behind_is_said(measured):
    measured(lenet_mnist=lines(ahead=(0.02, -0.01, 0.05), p=0.2))
    assert "not shown to be behind: *peer*" in report.where_not()


def test_nothing_is_said_where_ours_is_ahead_of_all(measured):
    measured(lenet_mnist=lines())
    assert report.where_not() == "On no network that was measured."
    assert "1 of 1" in report.ahead()


def test_peers_that_cost_a_tenth_are_named(measured):
    measured(lenet_mnist=lines(peer=0.93))  # 2 times the network, ours 20 times
    assert "none" in report.cheaper()
    of = lines(peer=0.93)
    of[1]["cost"]["ms"] = 41.0
    measured(lenet_mnist=of)
    assert "a network: peer (0.930)" in report.cheaper()


def test_failures_are_on_the_page(measured):
    measured(lenet_mnist=lines())
    assert "- a network, broken: `ValueError: no`" in report.page()


def test_the_page_has_every_attack_and_detector(measured):
    measured(lenet_mnist=lines())
    page = report.page()
    assert "| gradient steps | PGD | 0.90 | 1.50 | 90 |" in page
    assert "| peer | a test | nothing |" in page
    assert "2 detectors" in report.what()
    assert GUARD_WITH_COMPANION not in report.short_table()
    assert f"**{GUARD}**" in report.short_table()


def test_the_picture_has_each_detector_twice(measured):
    measured(lenet_mnist=lines())
    (figure,) = picture.pictures().values()
    for ax, costs in zip(figure.axes, ([2, 2], [2, 20]), strict=True):
        points = [line for line in ax.lines if len(line.get_xdata()) == 1]
        drawn = sorted(float(line.get_xdata()[0]) for line in points)
        assert drawn == pytest.approx(sorted(2 * costs))
        assert {float(line.get_ydata()[0]) for line in points} == {0.4, 0.6}
