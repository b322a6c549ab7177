"""The tables of the documents that tell first evaluations say what the files of evidence say."""

import csv
import json
import re
import runpy

import pytest

import exitbench
from exitbench.attacks.pairs import POLISH, ROUND
from exitbench.attacks.presets import matrix_names
from exitbench.attacks.settings import BUDGET
from exitbench.models.cost import measure_costs
from exitbench.models.weights import shipped_weights
from tests.bench.trained import TRAINED_ON, digits, trained
from tests.toys import ROOT

DOCS = ROOT / "docs"
PAGES = ("training.md", "findings.md", "certification.md")
"""Pages that say what is certified."""


def rows_of(name):
    with (DOCS / "evidence" / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(page, title, level=2):
    """The rows of the first table behind a heading, as lists of cells without marks of code."""
    lines = (DOCS / page).read_text(encoding="utf-8").partition(f"\n{'#' * level} {title}\n")[2].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    assert found
    return found


def rule_of(policy):
    """The rule as the table calls it."""
    if policy.startswith("exit:"):
        return "always-last" if policy == "exit:7" else f"{policy}, for every image"
    return policy.partition(":")[0] + (", with temperatures" if "temperature" in policy else "")


def percent(row):
    return f"{100 * float(row['accuracy']):.1f}"


def test_the_rules_on_one_network_are_those_on_file():
    by_rule = {}
    for row in rows_of("exit-rules-rdi_resnet38-cifar10.csv"):
        assert row["n"] == "256"
        by_rule.setdefault(rule_of(row["policy"]), {})[row["attack"]] = row
    told = table("exit-rules.md", "What each rule is worth on one network")
    assert {row[0] for row in told} == set(by_rule)
    for rule, clean, cost, adaptive, autoattack, worst, slowed in told:
        found = by_rule[rule]
        names = ("none", "adaptive", "autoattack", "worst")
        assert [clean, adaptive, autoattack, worst] == [percent(found[name]) for name in names]
        assert cost == f"{float(found['none']['mmacs']):.1f}"
        more = round(256 * (float(found["adaptive"]["accuracy"]) - float(found["autoattack"]["accuracy"])))
        assert more == 1 if rule == "always-last" else more <= 0
        free = found["slowdown:free"]
        lost = f"{100 * float(free['savings_erased']):.0f} %" if free["savings_erased"] else "none to lose"
        assert slowed == f"{float(free['mmacs']):.1f} ({lost})"


def test_the_networks_of_the_field_are_those_on_file():
    trained = {
        "max-average": "max_average_fast",
        "NEO-KD": "neo_kd_fast",
        "self-distillation (SKD)": "skd_fast",
        "none (SDN)": "sdn_fast",
    }
    by_network = {}
    for row in rows_of("networks-of-the-field.csv"):
        if row["n"] == "256":
            by_network.setdefault((row["model"], row["training"]), {})[row["attack"]] = row
    seen = set()
    for network, defence, cost, _, clean, average, adaptive in table("training.md", "The field's other networks"):
        if adaptive == "not run":
            continue
        found = by_network[network.partition(",")[0], trained[defence]]
        digits = 2 if float(cost) < 1 else 1
        assert cost == f"{float(found['none']['mmacs']):.{digits}f}"
        assert [clean, average, adaptive] == [percent(found[name]) for name in ("none", "average", "adaptive")]
        seen.add((network, defence))
    assert len(seen) == 6


def test_the_rules_on_the_cards_are_those_chosen_on_held_out_images():
    by_network = {}
    for row in rows_of("exit-rules-chosen.csv"):
        by_network.setdefault((row["model"], row["training"]), []).append(row)
    told = table("training.md", "The rule chosen for each", level=3)
    assert len(told) == len(by_network) == 4
    for model, training, *accuracies, chosen in told:
        rows = by_network[model, training]
        assert accuracies == [f"{100 * float(row['adaptive']):.1f}" for row in rows]
        target = float(rows[0]["target_mmacs"])
        within = [row for row in rows if float(row["mmacs"]) <= 1.05 * target]
        assert chosen == max(within, key=lambda row: (float(row["adaptive"]), float(row["clean"])))["rule"]
        (card,) = (card for card, _ in shipped_weights() if (card.model, card.training) == (model, training))
        assert card.policy.startswith(f"{chosen}:") and card.details["recipe"]["rule"] == f"{chosen}@mmacs={target:g}"


def test_the_worst_case_under_the_chosen_rules_is_on_file():
    found = {}
    for row in rows_of("chosen-rules-worst.csv"):
        found.setdefault((row["model"], row["training"]), {})[row["attack"]] = row
    told = table("training.md", "Worst case under the chosen rule", level=3)
    assert len(told) == len(found) == 4
    for model, training, rule, clean, worst, interval, mmacs, gradients in told:
        rows = found[model, training]
        (card,) = (card for card, _ in shipped_weights() if (card.model, card.training) == (model, training))
        assert rows["none"]["policy"] == card.policy and card.policy.startswith(f"{rule.strip('`')}:")
        assert {row["n"] for row in rows.values()} == {"256"} and rows["worst"]["accuracy"] == rows["cascade"]["accuracy"]
        assert [clean, worst] == [percent(rows[name]) for name in ("none", "worst")]
        assert interval == " - ".join(f"{100 * float(rows['worst'][end]):.1f}" for end in ("ci_low", "ci_high"))
        digits = 2 if float(rows["none"]["mmacs"]) < 1 else 1
        assert mmacs == ", ".join(f"{float(rows[name]['mmacs']):.{digits}f}" for name in ("none", "cascade"))
        assert gradients == f"{float(rows['cascade']['backwards']):,.0f}"
        assert not any(row["flags"] not in ("", "none") for row in rows.values())


def test_learned_gates_score_on_held_out_images_as_their_card_says():
    text = " ".join((DOCS / "exit-rules.md").read_text(encoding="utf-8").split())
    for stem, words in (
        ("rdi_resnet38_gated-cifar10-gates_fast", "{} % clean and {} % under PGD-20"),
        ("rdi_resnet38-cifar10-max_average_fast", "`entropy` gives the same network {} and {} %"),
    ):
        card = json.loads((ROOT / "models" / "weights" / f"{stem}.json").read_text(encoding="utf-8"))
        found = card["details"]["on_calibration_split"]
        assert found["n"] == 1000
        assert words.format(*(f"{100 * found[name]:.1f}" for name in ("clean", "pgd20_average"))) in text


def test_a_rule_is_chosen_by_what_the_attack_leaves_of_it(capsys):
    example = runpy.run_path(str(DOCS / "examples" / "choose_exit_rule.py"))
    settings = {"dataset": "digits", "attacked": 8, "budget": 4}
    found = example["chosen"]("rdi_smallcnn", "average", 7, rules=("vote",), **settings)
    assert list(found["rule"]) == ["vote"]
    assert 0 <= float(found["adaptive"].iloc[0]) <= float(found["clean"].iloc[0]) and 1 < float(found["mmacs"].iloc[0]) < 11
    assert capsys.readouterr().out.count("adaptive") == 1


def test_thresholds_are_chosen_by_what_certify_proves():
    example = runpy.run_path(str(DOCS / "examples" / "choose_certified_rule.py"))
    (net, _), batch, rule = trained(), digits().batch(TRAINED_ON, TRAINED_ON + 32), "margin:0.9,0.9"
    logits, bounds = example["bounded"](net, batch.x, batch.y, 0.02, (1, 8, 8))
    found = example["figures"](rule, logits, batch.y, bounds, measure_costs(net, (1, 8, 8)))
    proven = exitbench.certify(net, dataset=(batch.x, batch.y), policy=rule, eps=0.02, methods="ibp", name="net")
    assert found["certified"] == proven.accuracy() > 0
    assert found["certified_mmacs"] == pytest.approx(proven.cost()) and found["mmacs"] < proven.cost()
    levels = {"margin": (0.5, 0.9), "confidence": (0.9,)}
    table = example["chosen"]("rdi_smallcnn", "average", 7, 20, dataset="digits", n=16, levels=levels)
    assert list(table["rule"][:3]) == ["exit:1", "exit:2", "exit:3"] and (table["mmacs"][3:5] <= 7).all() and len(table) == 6


def test_the_choice_of_the_certified_rule_is_on_file():
    rows = rows_of("certified-rule-chosen.csv")
    told = table("training.md", "Training on bounds")
    assert len(told) == len(rows) - 1 > 3
    for (rule, clean, certified, *costs), row in zip(told, rows, strict=False):
        assert rule == row["rule"]
        assert [clean, certified] == [f"{100 * float(row[name]):.2f}" for name in ("clean", "certified")]
        mean, most, dense, most_dense = (
            f"{float(row[name]):.2f}" for name in ("mmacs", "certified_mmacs", "mmacs_dense", "certified_mmacs_dense")
        )
        assert costs == [mean, most, f"{dense}, {most_dense}"]
    best = max(rows[3:-1], key=lambda row: (float(row["certified"]), -float(row["mmacs"])))
    (card,) = (card for card, _ in shipped_weights() if card.training == "certified_rule_fast")
    assert card.policy == best["rule"] and float(best["mmacs"]) <= 7.46 and float(best["certified_mmacs"]) <= 8.96


def test_what_attacks_and_bounds_say_of_the_certified_network_is_on_file():
    rows = {row["attack"]: row for row in rows_of("certified-rdi_smallcnn-mnist.csv")}
    (card,) = (card for card, _ in shipped_weights() if card.training == "certified_rule_fast")
    assert all(row["weights"] == f"sha256:{card.sha256[:12]}" and row["policy"] == card.policy for row in rows.values())
    clean, worst = (percent(rows[name]) for name in ("none", "worst"))
    certified, most = (float(rows["worst"][name]) for name in ("certified", "certified_mmacs"))
    mean, dense = (float(rows["none"][name]) for name in ("mmacs", "mmacs_dense"))
    text, found, bounds = (" ".join((DOCS / page).read_text(encoding="utf-8").split()) for page in PAGES)
    adaptive, autoattack = (percent(rows[name]) for name in ("adaptive", "autoattack"))
    assert f"`{card.policy}` is {clean} % clean. The whole set of attacks leaves {worst} % (`adaptive` alone {adaptive}," in text
    assert f"AutoAttack alone {autoattack}), {100 * certified:.1f} % are certified" in text
    assert f"between {100 * certified:.1f} and {worst} %**" in text and rows["worst"]["status"] == "ok"
    assert matrix_names(3) <= rows.keys(), "the whole set of attacks"
    assert f"The mean cost is {mean:.2f} mmacs, and at most {most:.2f} under any attack." in text
    assert f"this network {dense:.2f}, and" in text
    assert (
        f"{clean} % clean; for {100 * certified:.1f} % of the first 1,000" in found
        and f"all attacks together leave {worst} %" in found
    )
    assert f"costs {mean:.1f} mmacs on clean images and at most {most:.1f} under any attack" in found
    assert f"{100 * certified:.1f} % of the first 1,000 test images are certified, attacks leave {worst} %" in bounds
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert (
        f"{100 * certified:.1f} % of the images are proven robust under the exit rule, and all attacks together leave {worst} %"
        in readme
    )


def test_what_the_adaptive_attack_gains_pair_by_pair_is_on_file():
    found = {}
    for row in rows_of("adaptive-pairs-authors-rdi_resnet38.csv"):
        if row["attack"] == "adaptive":
            found[row["training"], f"{row['first']} - {row['last']}", row["version"]] = row
    told = table("exit-rules.md", "Pair by pair")
    assert len(found) == 2 * len(told) > 4
    for weights, images, *left, alone, before, now in told:
        old, new = (found[weights, images, version] for version in "45")
        assert left == [f"{row['left']} of {row['n']}" for row in (old, new)]
        assert alone == f"{new['broken_alone']}, {old['broken_alone']}"
        assert [before, now] == [f"{float(row['backwards']):.0f}" for row in (old, new)]
        assert int(old["left"]) - int(new["left"]) == int(new["broken_alone"]) - int(old["broken_alone"])
        assert int(new["left"]) < int(old["left"]) and (images != "0 - 999" or float(new["backwards"]) < 150)
    old, new = (percent(found["authors", "0 - 999", version]) for version in "45")
    assert f"it leaves {new} % of 1,000 images in place of {old} %" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_what_the_worst_case_adds_is_on_file():
    found = {}
    for row in rows_of("adaptive-pairs-authors-rdi_resnet38.csv"):
        if row["training"] == "authors" and row["version"] != "4":
            found[f"{row['first']} - {row['last']}", row["attack"]] = row
    told = table("exit-rules.md", "In a worst case", level=3)
    assert len(told) == 3
    for images, *cells in told:
        adaptive, worst = found[images, "adaptive"], found[images, "cascade"]
        left = [f"{row['left']} of {row['n']}" for row in (adaptive, worst)]
        assert cells == [*left, *(f"{float(row['backwards']):.0f}" for row in (adaptive, worst))]
        assert int(adaptive["left"]) - int(worst["left"]) == int(worst["broken_alone"]), "it breaks what adaptive breaks"
    percents = [percent(found["0 - 999", attack]) for attack in ("adaptive", "cascade")]
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "leaves {1} % of the authors' first 1,000 images, where `adaptive` leaves {0} %".format(*percents) in text


def test_the_schedule_pair_by_pair_is_the_one_told():
    tries = [(rung.pairs, rung.steps) for rung in ROUND]
    text = (DOCS / "exit-rules.md").read_text(encoding="utf-8").partition("\n## Pair by pair\n")[2]
    told = [tuple(map(int, re.findall(r"\d+", line.partition(".")[2]))) for line in text.splitlines() if re.match(r"\d\. ", line)]
    assert told == [*tries, (POLISH,)]
    assert f"{sum(pairs * steps for pairs, steps in tries) + POLISH} more" in text and f"at most {BUDGET})" in text
